/**
 * The files of the documentation: the pages as Markdown, their images, and the script and the style
 * of the site. A bundle replaces the module by their bytes (scripts/lib/bundle.ts).
 */
import { readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";

const repository = join(import.meta.dirname, "../../../..");

/** The pages and the examples outside of docs/ to which the pages of docs/ lead. */
const besides = [
  "README.md",
  "ARCHITECTURE.md",
  "CHANGELOG.md",
  "CONTRIBUTING.md",
  "clients/ts/README.md",
  "examples/go/README.md",
  "examples/python/README.md",
  "device.example.toml",
  "pinion.example.toml",
];

/** The files' bytes by path: a path in the repository, or `assets/…` for the site's own. */
export function documentationFiles(): ReadonlyMap<string, Buffer> {
  const read = (path: string): [string, Buffer] => [path, readFileSync(join(repository, path))];
  const assets = join(import.meta.dirname, "assets");
  return new Map([
    ...filesIn(join(repository, "docs")).map((file) =>
      read(relative(repository, file).replaceAll("\\", "/")),
    ),
    ...besides.map(read),
    ...filesIn(assets).map((file): [string, Buffer] => [
      `assets/${relative(assets, file)}`,
      readFileSync(file),
    ]),
  ]);
}

function filesIn(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}
