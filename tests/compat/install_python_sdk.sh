#!/bin/sh
# install_python_sdk.sh VERSION FOLDER: PyPI's langgraph-sdk of that version in a virtual environment,
# if it is not there.
set -eu
version=$1 folder=$2
if [ "$("$folder/bin/python" -c 'from importlib.metadata import version
print(version("langgraph-sdk"))' 2>/dev/null)" = "$version" ]; then
    echo "langgraph-sdk $version is in $folder"
    exit 0
fi
/usr/bin/python3 -m venv --clear "$folder" || {
    echo "python3-venv is missing: ./heddle doctor"
    exit 1
}
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "langgraph-sdk==$version"
