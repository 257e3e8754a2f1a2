/** What a command of the built package loads before it does anything: its start takes as long. */
import { readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import type { Metafile } from "esbuild";
import { expect, inject, test } from "vitest";
import { metafileName } from "../../support/built-command.ts";

const { outputs }: Metafile = JSON.parse(
  readFileSync(join(dirname(inject("pinionMain")), metafileName), "utf8"),
);

/**
 * The packages and sources that a module loads with it; parts that it loads on demand do not count.
 */
function loadedBy(module: string): string {
  const [start] = Object.entries(outputs).find(([, { entryPoint }]) => entryPoint === module) ?? [];
  if (start === undefined) throw new Error(`${module} is no part of its own`);
  const loaded = new Set([start]);
  for (const path of loaded) {
    for (const { kind, path: next } of outputs[path]?.imports ?? []) {
      if (kind === "import-statement" && outputs[next]) loaded.add(next);
    }
  }
  return [...loaded].flatMap((path) => Object.keys(outputs[path]?.inputs ?? {})).join("\n");
}

test("a daemon loads no part of the server, and the other commands of a device no daemon", () => {
  const loaded = loadedBy("src/cli/device/daemon.ts");
  expect(loaded).toContain("node_modules/@grpc/grpc-js");
  expect(loadedBy("src/cli/commands/device.ts")).not.toMatch(/@grpc|@agentclientprotocol/);
  for (const part of ["src/store/", "src/server/", "node_modules/kysely/", "node_modules/pg/"]) {
    expect(loaded).not.toContain(part);
  }
});

test.each(["runs", "watchers", "devices", "agents"])(
  "`pinion %s` loads no part of a device or the server",
  (noun) => {
    const loaded = loadedBy(`src/cli/commands/${noun}/${noun}.ts`);
    expect(loaded).toContain("node_modules/@connectrpc/connect");
    for (const part of [
      "src/store/",
      "clients/ts/src/agents/drivers/acp.ts",
      "node_modules/@grpc/",
      "@agentclientprotocol",
      "node_modules/socks/",
    ]) {
      expect(loaded).not.toContain(part);
    }
  },
);

// `pinion agents` reads pinion.toml, whose schema needs it.
test.each(["runs", "watchers", "devices"])("`pinion %s` loads no library of schemas", (noun) => {
  expect(loadedBy(`src/cli/commands/${noun}/${noun}.ts`)).not.toContain("node_modules/zod/");
});

test("a daemon with secrets to conceal starts itself again before it loads the protocol", () => {
  for (const module of ["src/cli/device/self.ts", "src/cli/device/conceal.ts"]) {
    expect(loadedBy(module)).not.toMatch(/node_modules|clients\//);
  }
});
