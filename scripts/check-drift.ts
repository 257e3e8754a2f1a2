/**
 * Fails when a committed file differs from the output of its generator: the generated code, the
 * schema dump, the page of the configuration, the web page, and a lockfile without addresses of
 * registries. Changes nothing.
 */
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { configurationFile, configurationPage } from "./lib/configuration.ts";
import { buildPage, pageDir } from "./lib/page.ts";
import { generate, root } from "./lib/proto.ts";
import { dumpSchema, schemaDumpFile } from "./lib/schema-dump.ts";

const generatedDir = "clients/ts/src/gen";

async function checkGeneratedCode(): Promise<string[]> {
  const fresh = await mkdtemp(join(tmpdir(), "pinion-gen-"));
  try {
    generate(fresh);
    const differing = await compareTrees(join(root, generatedDir), join(fresh, generatedDir));
    return differing.map((file) => `${generatedDir}/${file} is not what proto/ says: run npm run generate`);
  } finally {
    await rm(fresh, { recursive: true, force: true });
  }
}

/** Paths of files that differ or exist in only one of the two trees. */
async function compareTrees(left: string, right: string): Promise<string[]> {
  const files = new Set([...(await listFiles(left)), ...(await listFiles(right))]);
  const differing: string[] = [];
  for (const file of [...files].sort()) {
    const [a, b] = await Promise.all(
      [left, right].map((dir) => readFile(join(dir, file), "utf8").catch(() => undefined)),
    );
    if (a !== b) differing.push(file);
  }
  return differing;
}

async function listFiles(dir: string): Promise<string[]> {
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(dir.length + 1));
}

async function checkLockfile(): Promise<string[]> {
  const lines = (await readFile(join(root, "package-lock.json"), "utf8")).split("\n");
  return lines
    .map((line, index) => ({ line, number: index + 1 }))
    .filter(({ line }) => line.includes('"resolved": "http'))
    .map(
      ({ number }) =>
        `package-lock.json:${number} names a registry: run npm install with the repository's .npmrc in effect`,
    );
}

async function checkSchemaDump(): Promise<string[]> {
  const committed = await readFile(schemaDumpFile, "utf8").catch(() => "");
  const fresh = await dumpSchema();
  if (committed === fresh) return [];
  const known = new Set(committed.split("\n"));
  const added = fresh.split("\n").filter((line) => !known.has(line));
  const excerpt = added.slice(0, 10).map((line) => `    + ${line.trim()}`);
  return [
    [
      "src/store/pg/schema.dump.txt is not what the migrations make: run npm run dump-schema",
      ...excerpt,
    ].join("\n"),
  ];
}

async function checkConfigurationPage(): Promise<string[]> {
  const committed = await readFile(configurationFile, "utf8").catch(() => "");
  if (committed === configurationPage()) return [];
  return ["docs/configuration.md is not what the settings say: run npm run generate"];
}

async function checkPage(): Promise<string[]> {
  const fresh = await buildPage();
  const committed = await listFiles(join(root, pageDir)).catch(() => []);
  const stale = await Promise.all(
    fresh.map(async ({ path, bytes }) => {
      const found = await readFile(join(root, pageDir, path)).catch(() => undefined);
      return found?.equals(bytes) ? [] : [path];
    }),
  );
  const extra = committed.filter((path) => !fresh.some((file) => file.path === path));
  return [...stale.flat(), ...extra].map(
    (path) => `${pageDir}/${path} is not what web/ makes: run npm run build:page`,
  );
}

const checks = [
  checkGeneratedCode(),
  checkLockfile(),
  checkSchemaDump(),
  checkConfigurationPage(),
  checkPage(),
];
const problems = (await Promise.all(checks)).flat();
for (const problem of problems) console.error(`drift: ${problem}`);
if (problems.length > 0) process.exitCode = 1;
else
  console.log(
    "No drift: the generated code, the schema dump, the configuration, the page and the lockfile are what their sources say.",
  );
