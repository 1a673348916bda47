"""What the files at the top of the repository say about each other."""

import itertools
import re
import xml.etree.ElementTree as ElementTree


def test_changelog_begins_with_this_version(repo):
    lines = (repo / "CHANGELOG.rst").read_text().splitlines()
    name, version = (ElementTree.parse(repo / "package.xml").getroot().findtext(tag) for tag in ("name", "version"))
    assert lines[1] == f"Changelog for package {name}"
    assert lines[0] == lines[2] == "^" * len(lines[1]), "the header of REP 132"
    headers = [(line, below) for line, below in itertools.pairwise(lines) if re.fullmatch("-{3,}", below)]
    assert headers, "no version has a header"
    for header, underline in headers:
        assert re.fullmatch(r"Forthcoming|\d+\.\d+\.\d+ \(\d{4}-\d\d-\d\d\)", header)
        assert len(underline) == len(header)
    newest = next(header for header, _ in headers if header != "Forthcoming")
    assert newest.split()[0] == version
