/** Files in the data directory, at whose paths a program of the device may leave anything. */
import { execFileSync } from "node:child_process";
import {
  closeSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { openLog, prepareLog } from "../../../src/cli/data-files.ts";

test.skipIf(process.platform === "win32").each([
  ["a FIFO", (path: string) => void execFileSync("mkfifo", [path])],
  ["a link", (path: string) => symlinkSync("/dev/full", path)],
  ["a directory", (path: string) => void mkdirSync(join(path, "within"), { recursive: true })],
  ["a log", (path: string) => writeFileSync(path, "one\n")],
  ["nothing", () => {}],
])("a log is opened at once where there is %s, and is a file", (name, put) => {
  const directory = mkdtempSync(join(tmpdir(), "pinion-log-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "daemon.log");
  put(path);
  const start = prepareLog(path);
  expect(start).toBe(name === "a log" ? 4 : 0);
  const log = openLog(path);
  writeSync(log, "two\n");
  closeSync(log);
  expect(lstatSync(path).isFile()).toBe(true);
  expect(lstatSync(path).size).toBe(start + 4);
});
