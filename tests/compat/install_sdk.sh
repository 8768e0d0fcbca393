#!/bin/sh
# install_sdk.sh VERSION FOLDER: @langchain/langgraph-sdk of that version, from npm, if it is not there.
#
# The SDK's packages want Node 20; Debian 12 has 18. An older one fetches a newer one, from npm too.
set -eu
version=$1 folder=$2
package=@langchain/langgraph-sdk
mkdir -p "$folder"
cd "$folder"
command -v npm >/dev/null 2>&1 || { echo "npm is missing: ./heddle doctor"; exit 1; }
major=$(node --version | sed 's/^v\([0-9]*\)\..*/\1/')
wanted=$package@$version
[ "$major" -ge 20 ] || wanted="$wanted node@20"
if grep -q "\"version\": \"$version\"" "node_modules/$package/package.json" 2>/dev/null &&
    { [ "$major" -ge 20 ] || [ -x node_modules/.bin/node ]; }; then
    echo "$package $version is in $folder"
    exit 0
fi
echo '{"private": true}' >package.json
# shellcheck disable=SC2086 # one word a package
npm install --no-audit --no-fund --no-progress --loglevel=error $wanted
