#!/bin/sh
# install_python_package.sh PACKAGE VERSION FOLDER: that version of a package of Python's index in a
# virtual environment, if it is not there.
set -eu
package=$1 version=$2 folder=$3
if [ "$("$folder/bin/python" -c 'import sys
from importlib.metadata import version
print(version(sys.argv[1]))' "$package" 2>/dev/null)" = "$version" ]; then
    echo "$package $version is in $folder"
    exit 0
fi
/usr/bin/python3 -m venv --clear "$folder" || {
    echo "python3-venv is missing: ./heddle doctor"
    exit 1
}
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$package==$version"
