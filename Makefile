# `make demo` and `make test` set up everything they need in .venv, from PyPI. PYTHON names the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RECORDING ?= sample_recording
OUT ?= demo_out

# A sourced ROS would put its own packages, libraries and middleware before .venv's.
unexport PYTHONPATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH LD_LIBRARY_PATH ROS_DISTRO RMW_IMPLEMENTATION

# Beside other work PyTorch's threads must not spin while they wait (d2a2_ros/environment.py).
export OMP_WAIT_POLICY := PASSIVE

.PHONY: demo test quick venv clean

# Processes of the tests, each with its share of the cores (test/conftest.py) and a ROS domain of its own (test/ros/conftest.py).
# On two cores three took no less time than two. Each takes about a gigabyte.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

venv: $(STAMP)

# Where there is none for a machine, PyTorch does its work.
OPENVINO := openvino>=2025.0,<2028

$(STAMP): requirements.txt setup.py $(wildcard pip_ros/*/*.py) pip_ros/pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "needs Python 3.11 or newer, $(PYTHON) is older; call: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check ./pip_ros
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --config-settings editable_mode=compat --editable .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --only-binary :all: "$(OPENVINO)" || \
		echo "no openvino for this machine: PyTorch computes the network, which takes one and a half to three times as long"
	# An editable install has no share files; launch and ros2 find the checkout's own through these links.
	mkdir -p $(VENV)/share/ament_index/resource_index/packages
	ln -sfn $(CURDIR)/resource/d2a2_ros $(VENV)/share/ament_index/resource_index/packages/d2a2_ros
	ln -sfn $(CURDIR) $(VENV)/share/d2a2_ros
	ln -sfn $(CURDIR)/scripts $(VENV)/lib/d2a2_ros
	touch $@

demo: $(STAMP)
	$(BIN)/python -m d2a2_ros.demo --recording "$(RECORDING)" --out "$(OUT)"

test: $(STAMP)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(PYTEST)

# Leaves out tests that take seconds each, and those that need ROS.
quick: $(STAMP)
	$(PYTEST) -m "not slow and not ros"

clean:
	rm -rf $(VENV) build *.egg-info $(OUT)
