import { randomUUID } from "node:crypto";
import { mkdir, mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { expect, onTestFinished, test, vi } from "vitest";
import { CompletionSchema, Outcome } from "#gen/pinion/v1/device_pb.js";
import { type KeepLimits, KeptResults } from "../../../clients/ts/src/outbox/kept.ts";
import { Outbox } from "../../../clients/ts/src/outbox/outbox.ts";

const by = { systemIdentifier: "7420", timeline: 1 };

async function outboxDirectory(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "pinion-test-"));
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Kept results on a disk that takes no file until `mend`. */
async function openWithoutDisk() {
  const directory = await outboxDirectory();
  const kept = await KeptResults.open(directory);
  const folder = join(directory, "kept");
  await rm(folder, { recursive: true });
  return { kept, directory, mend: () => mkdir(folder), files: () => readdir(folder) };
}

/** A kept result, and its entry from before the database's position changed the file's name. */
async function keepOne(limits?: KeepLimits) {
  const directory = await outboxDirectory();
  const { outbox } = await Outbox.open(directory);
  const kept = await KeptResults.open(directory, limits);
  const keep = async () => {
    const [workId, attemptToken] = [randomUUID(), randomUUID()];
    const completion = create(CompletionSchema, {
      ...{ workId, attemptToken, outcome: Outcome.COMPLETED, output: "done" },
    });
    await outbox.put({ completion, finishedAtMs: Date.now() });
    await kept.keep({ workId, attemptToken }, by, { acknowledgedAt: 1n });
    return attemptToken;
  };
  const attemptToken = await keep();
  const [before] = kept.list();
  kept.passed(by, 2n, { isWelcome: false });
  expect(kept.list()).toMatchObject([{ attemptToken, storedBefore: 2n }]);
  return { kept, keep, directory, before: before!, files: () => readdir(join(directory, "kept")) };
}

test("a kept result whose file was renamed since its entry was read is found, and stays", async () => {
  const { kept, before, files } = await keepOne();
  expect((await kept.read(before))?.completion.output).toBe("done");
  expect(kept.list()).toHaveLength(1);
  expect(await files()).toHaveLength(1);
});

test("a kept result whose file was renamed since is confirmed for another database", async () => {
  const { kept, before, files } = await keepOne();
  kept.confirm(before, { ...by, timeline: 2 }, { answeredAt: 3n });
  expect(kept.list()).toMatchObject([{ by: { timeline: 2 }, storedBefore: undefined }]);
  expect(await files()).toEqual([expect.stringMatching(/\.7420-2\.kept$/)]);
});

test("a kept result whose file was renamed since is dropped with its file", async () => {
  const { kept, files } = await keepOne();
  await kept.limit({ ms: 0, bytes: 0 });
  expect(kept.list()).toEqual([]);
  expect(await files()).toEqual([]);
});

test("a result that the disk did not take is kept in memory, follows the database, and reaches the disk later", async () => {
  const { kept, directory, mend, files } = await openWithoutDisk();
  const [workId, attemptToken] = [randomUUID(), randomUUID()];
  const completion = create(CompletionSchema, {
    ...{ workId, attemptToken, outcome: Outcome.COMPLETED, output: "done" },
  });
  const unsaved = { completion, finishedAtMs: 1 };
  await kept.keep({ workId, attemptToken }, by, { acknowledgedAt: 1n, unsaved });
  kept.passed(by, 2n, { isWelcome: false });
  const [entry] = kept.list();
  expect(entry).toMatchObject({ attemptToken, storedBefore: 2n });
  expect((await kept.read(entry!))?.completion.output).toBe("done");
  kept.confirm(entry!, { ...by, timeline: 2 }, { answeredAt: 3n });
  await mend();
  await kept.saveAll();
  expect(await files()).toEqual([expect.stringMatching(/\.7420-2\.kept$/)]);
  const again = await KeptResults.open(directory);
  expect((await again.read(again.list()[0]!))?.completion.output).toBe("done");
});

test("of results in memory the oldest are dropped beyond 32 MiB, and a result dropped during its write leaves no file", async () => {
  const { kept, mend, files } = await openWithoutDisk();
  const tokens: string[] = [];
  for (let count = 0; count < 5; count += 1) {
    const [workId, attemptToken] = [randomUUID(), randomUUID()];
    tokens.push(attemptToken);
    const output = "x".repeat(10 * 1024 * 1024);
    const completion = create(CompletionSchema, { workId, attemptToken, output });
    await kept.keep({ workId, attemptToken }, by, { unsaved: { completion, finishedAtMs: 1 } });
  }
  expect(kept.list().map(({ attemptToken }) => attemptToken)).toEqual(tokens.slice(2));
  await mend();
  const saving = kept.saveAll();
  await kept.limit({ ms: 0, bytes: 0 });
  await saving;
  expect(kept.list()).toEqual([]);
  expect(await files()).toEqual([]);
});

const dayMs = 24 * 3_600_000;

/** Sets the device's clock for the rest of the test; the monotonic clock goes on. */
function setClock(aheadMs: number): void {
  const now = Date.now() + aheadMs;
  vi.useFakeTimers({ now, toFake: ["Date"] });
  onTestFinished(() => void vi.useRealTimers());
}

test("a device's clock that is two days ahead drops no kept result, neither in the process that kept it nor in the next", async () => {
  const { kept, directory } = await keepOne();
  const serverMs = Date.now();
  setClock(2 * dayMs);
  await kept.toldTime(serverMs);
  expect(kept.list()).toHaveLength(1);
  const next = await KeptResults.open(directory);
  expect(next.list()).toHaveLength(1);
  await next.toldTime(serverMs);
  expect(next.list()).toHaveLength(1);
  expect(next.ageMs(next.list()[0]!)).toBeLessThan(60_000);
});

test("a server's clock that is two days ahead drops no kept result", async () => {
  const { directory } = await keepOne();
  const next = await KeptResults.open(directory);
  await next.toldTime(Date.now() + 2 * dayMs);
  expect(next.list()).toHaveLength(1);
});

test("a kept result that is too old by the device's and by the server's clock is dropped, at the welcome", async () => {
  const { directory } = await keepOne();
  setClock(2 * dayMs);
  const next = await KeptResults.open(directory);
  expect(next.list()).toHaveLength(1);
  await next.toldTime(Date.now());
  expect(next.list()).toEqual([]);
});

test("a result that was kept while the device's clock was a day behind is dropped no earlier", async () => {
  const { keep, directory, kept } = await keepOne();
  const serverMs = Date.now();
  setClock(-dayMs);
  await kept.toldTime(serverMs);
  await keep();
  vi.useRealTimers();
  const next = await KeptResults.open(directory);
  await next.toldTime(serverMs);
  expect(next.list()).toHaveLength(2);
});
