#!/usr/bin/env bash
# SPDX-License-Identifier: BSD-3-Clause
# The manifests in doc/kubernetes against the schemas of Kubernetes, as the npm package kubernetes-models has them; and that
# these find a mistake.
set -euo pipefail
source=$(cd "$(dirname "$0")/.." && pwd)
for program in node npm; do
    command -v $program >/dev/null || { echo "SKIP: $program is not installed"; exit 77; }
done
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
npm install --silent kubernetes-models@4 js-yaml@4 >log 2>&1 || { echo "SKIP: the packages cannot be had: $(tail -n 1 log)"; exit 77; }
cat >validate.mjs <<'END'
import fs from "node:fs";
import { loadAll } from "js-yaml";
import { Deployment } from "kubernetes-models/apps/v1/Deployment";
import { Service } from "kubernetes-models/v1/Service";
const kinds = { Deployment, Service };
for (const object of loadAll(fs.readFileSync(process.argv[2], "utf8"))) {
  new kinds[object.kind](object).validate();
  console.log(`${object.kind} ${object.metadata.name}: valid`);
}
END
node validate.mjs "$source/doc/kubernetes/qluks.yaml"
sed 's/runAsNonRoot: true/runAsNonRoot: perhaps/' "$source/doc/kubernetes/qluks.yaml" >wrong.yaml
if node validate.mjs wrong.yaml >log 2>&1; then echo "a mistake is not found"; exit 1; fi
grep -q runAsNonRoot log
