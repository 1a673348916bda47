"""Package of d2a2_core and d2a2_ros, for pip and for colcon (ament_python) alike."""

from glob import glob

from setuptools import find_packages, setup

PACKAGE = "d2a2_ros"
EXECUTABLES = ("upsample_node", "recording_player")

setup(
    name=PACKAGE,
    version="0.2.0",
    description="RGB-guided depth super-resolution (D2A2) for ROS 2 and for offline use",
    license="Apache-2.0",
    maintainer="D2A2 founders",
    maintainer_email="d2a2@example.com",
    python_requires=">=3.10",
    packages=find_packages(include=["d2a2_core*", "d2a2_ros*"]),
    package_data={
        "d2a2_core": ["pretrained/*.safetensors", "pretrained/*.json", "evaluation/*.csv", "evaluation/templates/*"]
    },
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", glob("launch/*.launch.py")),
        (f"share/{PACKAGE}/launch/recipes", glob("launch/recipes/*.launch.py")),
        (f"share/{PACKAGE}/config", glob("config/*.yaml") + glob("config/*.xml")),
        (f"share/{PACKAGE}/config/cameras", glob("config/cameras/*.yaml")),
        (f"share/{PACKAGE}/config/recipes", glob("config/recipes/*.yaml")),
        (f"share/{PACKAGE}/sample_recording", glob("sample_recording/*")),
        # `ros2 run` and launch look here. colcon writes these itself from setup.cfg; pip ignores that setting.
        (f"lib/{PACKAGE}", [f"scripts/{name}" for name in EXECUTABLES]),
    ],
    install_requires=[
        "torch>=2.4,<3",
        "torchvision>=0.19,<1",
        "numpy>=1.24,<3",
        "pillow>=10.1,<14",
        "scipy>=1.11,<2",
        "safetensors>=0.4,<1",
        "tqdm>=4.60,<5",
        "pyyaml>=6,<7",
        "jsonschema>=3.2,<5",
        "jinja2>=3,<4",
    ],
    extras_require={
        "eval": [
            "opencv-contrib-python-headless>=4.8,<6",
            "onnxruntime>=1.17,<2",
            "h5py>=3.8,<4",
            "matplotlib>=3.8,<4",
        ],
        "bag": ["rosbags>=0.11.8,<0.12"],
        "openvino": ["openvino>=2025.0,<2028"],
        "onnx": ["onnx>=1.15,<2", "onnxruntime>=1.17,<2"],
        "train": ["tensorboard>=2.14,<3"],
        "render": ["embreex>=2.17.7,<5"],
        # `colcon test` runs pytest only for a package whose extra "test" names it.
        "test": ["pytest>=8,<10"],
    },
    entry_points={
        "console_scripts": [
            "d2a2 = d2a2_core.cli:main",
            *(
                f"{name} = d2a2_ros.{module}:main"
                for name, module in zip(EXECUTABLES, ("node", "recording_player"), strict=True)
            ),
        ]
    },
    zip_safe=False,
)
