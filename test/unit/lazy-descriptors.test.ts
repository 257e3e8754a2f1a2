/** Bundled descriptors are those of the generated files, and are made at their first use. */
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { DescFile } from "@bufbuild/protobuf";
import { build } from "esbuild";
import { afterAll, beforeAll, expect, test } from "vitest";
import { lazyDescriptors } from "../../scripts/lib/lazy-descriptors.ts";
import { root } from "../../scripts/lib/proto.ts";

const files = ["activity", "agent", "destination", "device", "event", "fleet", "hook", "org", "run"]
  .concat("sign_in", "token", "turn", "watcher")
  .map((name) => `./clients/ts/src/gen/pinion/v1/${name}_pb.js`);

type Module = Record<string, unknown>;
let folder = "";
let bundled: Module;

beforeAll(async () => {
  // Below the packages, which the generated files and the bundle share.
  folder = await mkdtemp(join(root, "node_modules/.cache/descriptors-"));
  const outfile = join(folder, "all.mjs");
  const lines = files.map((path, i) => `export * as file${i} from ${JSON.stringify(path)};`);
  await build({
    stdin: { contents: lines.join("\n"), resolveDir: root },
    bundle: true,
    format: "esm",
    platform: "node",
    outfile,
    plugins: [lazyDescriptors],
  });
  bundled = (await import(pathToFileURL(outfile).href)) as Module;
});

afterAll(() => rm(folder, { recursive: true }));

/** Of a descriptor its kind, name and members; all of a table of numbers. */
function shapeOf(value: unknown): unknown {
  const { kind, typeName, proto, fields, values, methods, messages } = value as Record<string, unknown> &
    Partial<DescFile>;
  if (kind === undefined) return value;
  const members = (fields ?? values ?? methods ?? messages ?? []) as { name: string; message?: Module }[];
  return {
    kind,
    name: typeName ?? proto?.name,
    members: members.map(({ name, message }) => [name, message?.typeName]),
  };
}

test.each(files.map((path, i) => ({ path, i })))("$path", async ({ path, i }) => {
  const plain = (await import(pathToFileURL(join(root, path)).href)) as Module;
  const lazy = bundled[`file${i}`] as Module;
  expect(Object.keys(lazy).sort()).toEqual(Object.keys(plain).sort());
  for (const [name, value] of Object.entries(plain)) expect(shapeOf(lazy[name])).toEqual(shapeOf(value));
});

test("a descriptor is one object at every use, also as another message's field", () => {
  const [watcher, activity] = ["watcher", "activity"].map(
    (name) => bundled[`file${files.findIndex((path) => path.includes(`/${name}_`))}`] as Module,
  );
  const { WatcherSpecSchema } = watcher as Module & {
    WatcherSpecSchema: { fields: { message?: unknown }[] };
  };
  expect(watcher?.WatcherSpecSchema).toBe(WatcherSpecSchema);
  expect(WatcherSpecSchema.fields.map(({ message }) => message)).toContain(activity?.BudgetSchema);
});
