/** The daemon opens no file that would block it, redirect it or fill its memory. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, onTestFinished, test } from "vitest";
import { readRegularFile, readRegularFileSync } from "../../../clients/ts/src/regular-file.ts";

const home = mkdtempSync(join(tmpdir(), "pinion-files-"));
afterAll(() => rmSync(home, { recursive: true, force: true }));
const at = (name: string) => join(home, name);

writeFileSync(at("file"), "content");
writeFileSync(at("large"), Buffer.alloc(200_000));
writeFileSync(at("empty"), "");
mkdirSync(at("directory"));
symlinkSync(at("file"), at("link"));
symlinkSync(at("link"), at("loop"));
execFileSync("mkfifo", [at("fifo")]);

const cases: [name: string, reading: object][] = [
  ["file", { kind: "read", bytes: Buffer.from("content") }],
  ["empty", { kind: "read", bytes: Buffer.alloc(0) }],
  ["large", { kind: "unfit", problem: "it is larger than 100000 bytes" }],
  ["directory", { kind: "unfit", problem: "it is a directory, not a file" }],
  ["link", { kind: "unreadable", problem: "it is a symbolic link (ELOOP)", isLink: true }],
  ["fifo", { kind: "unfit", problem: "it is a FIFO, not a file" }],
  ["nothing", { kind: "absent" }],
  ["file/below", { kind: "absent" }],
];

test.each(cases)("%s", async (name, reading) => {
  expect(await readRegularFile(at(name), { bytesMax: 100_000 })).toEqual(reading);
  expect(readRegularFileSync(at(name), { bytesMax: 100_000 })).toEqual(reading);
});

test("a device, a socket, and a link that is to be followed", async () => {
  expect(await readRegularFile("/dev/zero", { bytesMax: 10 })).toMatchObject({ kind: "unfit" });
  const server = createServer().listen(at("socket"));
  onTestFinished(() => void server.close());
  await new Promise((done) => server.once("listening", done));
  expect(await readRegularFile(at("socket"), { bytesMax: 10 })).toMatchObject({ kind: "unfit" });
  expect(await readRegularFile(at("link"), { bytesMax: 10, isLinkFollowed: true })).toMatchObject({
    kind: "read",
  });
});
