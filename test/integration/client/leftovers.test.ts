/** What programs leave in the folders that the daemon gives them, and has to remove. */
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { removeTree } from "../../../clients/ts/src/remove-tree.ts";
import { makeStateDir, settledSession, startDaemon, startPeer } from "./harness.ts";

/**
 * A program that makes a directory with a path longer than any system takes, and prints its mark.
 */
const digs = `const { mkdirSync } = require("node:fs");
const name = "d".repeat(200);
for (let depth = 0; depth < 40; depth += 1) { mkdirSync(name); process.chdir(name); }
console.log("deep");`;

const deepIn = (cwd: string) => execFileSync(process.execPath, ["-e", digs], { cwd });

test("a tree with paths longer than the system takes is removed, with all that is beside it", async () => {
  const root = join(makeStateDir(), "tree");
  for (const name of ["a", "b", "c"]) {
    mkdirSync(join(root, name), { recursive: true });
    deepIn(join(root, name));
    writeFileSync(join(root, name, "file"), "x");
  }
  chmodSync(join(root, "b"), 0);
  await removeTree(root);
  expect(existsSync(root)).toBe(false);
  await removeTree(root);
});

test("a program that leaves such a tree keeps neither its result nor the next daemon", async () => {
  const peer = await startPeer();
  const stateDir = makeStateDir();
  const config = `[executors.test]
command = [${JSON.stringify(process.execPath)}, "-e", ${JSON.stringify(
    `process.chdir(require("node:path").dirname(process.env.PINION_RETRY_AFTER_FILE));\n${digs}`,
  )}]`;
  const first = startDaemon(peer.url, config, { stateDir });
  const session = await settledSession(peer);
  session.assign();
  expect(await session.next("complete")).toMatchObject({ output: "deep\n" });
  expect(readdirSync(join(stateDir, "files"))).toEqual([]);
  await first.stop();

  // As a daemon that was killed leaves it.
  mkdirSync(join(stateDir, "files", "of-before"));
  deepIn(join(stateDir, "files", "of-before"));
  startDaemon(peer.url, config, { stateDir });
  await settledSession(peer);
  expect(existsSync(join(stateDir, "files"))).toBe(false);
});

test("a result is kept although the daemon has no file descriptor left while its program ends", () => {
  const script = join(import.meta.dirname, "few-descriptors.ts");
  const said = execFileSync("sh", ["-c", `ulimit -n 120; exec "$0" "$1"`, process.execPath, script], {
    encoding: "utf8",
    timeout: 60_000,
  });
  expect(JSON.parse(said)).toMatchObject({ kind: "exited", exitCode: 0, stdout: "the answer\n" });
});
