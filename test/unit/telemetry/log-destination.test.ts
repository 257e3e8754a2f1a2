import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { createLogger } from "../../../src/telemetry/log.ts";
import { LogDestination } from "../../../src/telemetry/log-destination.ts";

function openTemporary(): { path: string; descriptor: number } {
  const directory = mkdtempSync(join(tmpdir(), "pinion-test-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, "log");
  return { path, descriptor: openSync(path, "a") };
}

test("lines arrive in order, also those that are written when the process ends", async () => {
  const { path, descriptor } = openTemporary();
  const destination = new LogDestination(descriptor);
  const lines = Array.from({ length: 2_000 }, (_, index) => `line ${index}\n`);
  for (const line of lines.slice(0, 1_000)) destination.write(line);
  await vi.waitFor(() => expect(readFileSync(path, "utf8")).toBe(lines.slice(0, 1_000).join("")));
  // Of what is written in one go, the first line is on its way, and the rest waits.
  destination.write(lines[1_000]!);
  await vi.waitFor(() => expect(readFileSync(path, "utf8")).toBe(lines.slice(0, 1_001).join("")));
  for (const line of lines.slice(1_001)) destination.write(line);
  destination.flushSync();
  await vi.waitFor(() => expect(readFileSync(path, "utf8").length).toBe(lines.join("").length));
});

test("lines that could not be written are counted, and told in the log once it can be written again", async () => {
  const { path, descriptor } = openTemporary();
  const destination = new LogDestination(descriptor);
  const log = createLogger({ level: "info", name: "test", destination });
  // More than may wait: a reader that takes nothing costs lines, not memory.
  const large = "x".repeat(1024 * 1024);
  for (let count = 0; count < 20; count += 1) log.info({ count }, large);
  // The file has some 16 MiB, and a busy machine writes and reads them slowly.
  await vi.waitFor(() => expect(readFileSync(path, "utf8")).toContain("could not be written"), {
    timeout: 30_000,
    interval: 200,
  });
  const told = readFileSync(path, "utf8")
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));
  const { lines } = told.find(({ msg }) => msg.includes("could not be written"));
  expect(told.filter(({ count }) => count !== undefined)).toHaveLength(20 - lines);
  expect(lines).toBeGreaterThan(0);
  closeSync(descriptor);
}, 60_000);

test("a long text of a stranger is searched for secrets in a time that grows with its length", async () => {
  const { path, descriptor } = openTemporary();
  const log = createLogger({ level: "info", name: "test", destination: new LogDestination(descriptor) });
  const startedAt = process.cpuUsage();
  for (const piece of ["x", "a://a:"]) log.info(piece.repeat(200_000 / piece.length));
  log.info("x_postgres://me:hidden@host");
  const { user } = process.cpuUsage(startedAt);
  expect(user / 1_000, "milliseconds of processor time").toBeLessThan(3_000);
  await vi.waitFor(() => expect(readFileSync(path, "utf8")).toContain("x_postgres://me:[redacted]@host"));
});

test.skipIf(!existsSync("/dev/full"))(
  "a log on a full disk costs its lines, and nothing waits for it",
  async () => {
    const destination = new LogDestination(openSync("/dev/full", "w"));
    destination.write("a line\n");
    destination.write("another\n");
    destination.flushSync();
    await new Promise((done) => setImmediate(done));
    destination.write("a third\n");
    destination.flushSync();
  },
);
