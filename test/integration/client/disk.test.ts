/** The daemon's disk: full, read-only, unreadable for a while, and torn records. */
import { execFileSync } from "node:child_process";
import { randomUUID } from "node:crypto";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { basename, dirname, join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { describe, expect, onTestFinished, test } from "vitest";
import { CompletionSchema, CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { silentLogger } from "../../../clients/ts/src/index.ts";
import { Outbox } from "../../../clients/ts/src/outbox/outbox.ts";
import { decodeRecord, encodeRecord, type OutboxRecord } from "../../../clients/ts/src/outbox/record.ts";
import { Journal } from "../../../clients/ts/src/runner/journal.ts";
import { noticeSkipped } from "../../support/notice.ts";
import { makeStateDir, manualHandler, startDevice, startPeer, until } from "./harness.ts";

const recordsIn = (stateDir: string) =>
  readdirSync(join(stateDir, "outbox")).filter((name) => name.endsWith(".completion"));

/** Whole records: a full disk takes the name of a temporary file, until its write fails. */
const keptIn = (stateDir: string) =>
  readdirSync(join(stateDir, "outbox", "kept")).filter((name) => name.endsWith(".kept"));

/** The same while the directory may be missing. */
const keptOf = (stateDir: string) => (existsSync(join(stateDir, "outbox", "kept")) ? keptIn(stateDir) : []);

/** A small separate disk, if the system permits mounting one. */
function mountDisk(): string | undefined {
  const path = makeStateDir();
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", path], { stdio: "ignore" });
  } catch {
    return undefined;
  }
  onTestFinished(() => {
    execFileSync("umount", ["-l", path], { stdio: "ignore" });
  });
  return path;
}

/** Each makes the disk refuse writes, and takes them again. */
const faults = {
  full: {
    break(disk: string) {
      for (const size of [65_536, 4_096]) {
        try {
          for (let count = 0; ; count += 1)
            writeFileSync(join(disk, `filler-${size}-${count}`), Buffer.alloc(size));
        } catch {
          // Full, for files of this size.
        }
      }
    },
    mend(disk: string) {
      for (const name of readdirSync(disk)) if (name.startsWith("filler")) rmSync(join(disk, name));
    },
    problem: /ENOSPC|no space/i,
  },
  "read-only": {
    break: (disk: string) => execFileSync("mount", ["-o", "remount,ro", disk]),
    mend: (disk: string) => execFileSync("mount", ["-o", "remount,rw", disk]),
    problem: /EROFS|read-only/i,
  },
};

function canMount(): boolean {
  try {
    const path = execFileSync("mktemp", ["-d"], { encoding: "utf8" }).trim();
    execFileSync("mount", ["-t", "tmpfs", "tmpfs", path], { stdio: "ignore" });
    execFileSync("umount", [path]);
    rmSync(path, { recursive: true });
    return true;
  } catch {
    noticeSkipped("full and read-only disks of the daemon", "disks can only be mounted as root");
    return false;
  }
}

describe.skipIf(!canMount())("a disk that takes no writes", () => {
  test.each(Object.entries(faults))(
    "%s: it is said, results are kept and delivered, no new work is taken until it is mended",
    async (_, fault) => {
      const peer = await startPeer();
      const stateDir = mountDisk()!;
      const said: string[] = [];
      const say = (_fields: unknown, message: string) => said.push(message);
      const { onAssignment, calls } = manualHandler();
      const { device, events } = startDevice(peer.url, {
        stateDir,
        onAssignment,
        maxConcurrency: 4,
        logger: { ...silentLogger, error: say, info: say },
        timing: { ackDeadlineMs: 200 },
      });
      const session = await peer.session();
      peer.acknowledges = false;
      const [kept, delivered] = [session.assign(), session.assign()];
      await until(() => calls.length === 2, "two handlers");

      fault.break(stateDir);
      for (const call of calls) call.finish({ outcome: "completed", output: `result of ${call.workId}` });
      for (const { workId } of [kept, delivered]) {
        const sent = await session.next("complete", (completion) => completion.workId === workId);
        expect(sent.output).toBe(`result of ${workId}`);
      }
      expect(said.filter((message) => message.includes("cannot write the outbox"))).toHaveLength(1);
      expect(device.unacknowledged).toBe(2);
      const refused = session.assign();
      const rejection = await session.next("reject");
      expect(rejection).toMatchObject({
        workId: refused.workId,
        message: expect.stringMatching(fault.problem),
      });
      expect(rejection.message).toContain("disk");

      // One result is acknowledged while the disk is away: the acknowledged result never needs the
      // disk.
      session.acknowledge(delivered, 1);
      await until(() => device.unacknowledged === 1, "the acknowledgement");

      fault.mend(stateDir);
      await until(() => recordsIn(stateDir).length === 1, "the result is on the disk");
      expect(recordsIn(stateDir)[0]).toContain(kept.attemptToken);
      await until(() => said.some((message) => message.includes("taken again")), "the recovery is said");
      const next = session.assign();
      await session.next("accept", ({ workId }) => workId === next.workId);
      peer.acknowledges = true;
      expect(await events.next("acknowledged", ({ workId }) => workId === kept.workId)).toBeDefined();
      await until(
        () => recordsIn(stateDir).every((name) => !name.includes(kept.attemptToken)),
        "it is forgotten",
      );
    },
  );

  test.each(Object.entries(faults))(
    "%s: a daemon that starts meanwhile says so, leaves nothing behind, and connects once the disk takes writes",
    async (_, fault) => {
      const peer = await startPeer();
      const stateDir = mountDisk()!;
      // A result of the daemon before, which waits for this one.
      const { outbox } = await Outbox.open(join(stateDir, "outbox"));
      const waiting = recordOf("of yesterday");
      await outbox.put(waiting);
      fault.break(stateDir);
      const locks = () => readdirSync(stateDir).filter((name) => name.startsWith("daemon.lock"));
      const before = locks();
      const { events } = startDevice(peer.url, { stateDir, onAssignment: manualHandler().onAssignment });
      for (const count of [1, 2, 3]) {
        const { reason } = await events.next("retrying", () => true, count);
        expect(reason).toMatch(fault.problem);
      }
      expect(events.of("fatal")).toEqual([]);
      // A try that is under way has a file of its own, until its write fails.
      await until(() => locks().join() === before.join(), "nothing is left behind");
      fault.mend(stateDir);
      const session = await peer.session();
      expect(await session.next("complete")).toMatchObject({ output: "of yesterday" });
    },
  );

  test.each(Object.entries(faults))(
    "%s: a daemon that is closed while it waits for its disk ends",
    async (_, fault) => {
      const stateDir = mountDisk()!;
      fault.break(stateDir);
      const { device, events } = startDevice("http://127.0.0.1:1", {
        stateDir,
        onAssignment: manualHandler().onAssignment,
      });
      await events.next("retrying");
      await device.close();
      fault.mend(stateDir);
    },
  );

  test.each(Object.entries(faults))(
    "%s: a result that was acknowledged meanwhile is offered to the next database, and kept on the disk later",
    async (_, fault) => {
      const peer = await startPeer();
      peer.incarnation = { systemIdentifier: "7420", timeline: 1, position: "0/3000148" };
      const stateDir = mountDisk()!;
      const { onAssignment, calls } = manualHandler();
      const { device } = startDevice(peer.url, { stateDir, onAssignment, timing: { ackDeadlineMs: 200 } });
      const session = await peer.session();
      const { workId } = session.assign();
      await until(() => calls.length === 1, "the handler");
      fault.break(stateDir);
      calls[0]!.finish({ outcome: "completed", output: "done" });
      await session.next("complete");
      await until(() => device.unacknowledged === 0, "the acknowledgement");
      expect(keptIn(stateDir)).toEqual([]);

      peer.incarnation = { ...peer.incarnation, timeline: 2 };
      session.end();
      const promoted = await peer.session();
      expect(await promoted.next("complete")).toMatchObject({
        ...{ workId, output: "done", reoffer: { attempt: 1 } },
      });
      fault.mend(stateDir);
      await until(() => keptIn(stateDir).some((name) => name.endsWith("7420-2.kept")), "it is on the disk");
    },
  );

  test.each(Object.entries(faults))(
    "%s: a result that the server refuses meanwhile is kept in memory, and set aside once the disk takes it",
    async (_, fault) => {
      const peer = await startPeer();
      peer.completionVerdict = CompletionVerdict.INVALID;
      const stateDir = mountDisk()!;
      const { onAssignment, calls } = manualHandler();
      const { device, events } = startDevice(peer.url, {
        ...{ stateDir, onAssignment },
        timing: { ackDeadlineMs: 200 },
      });
      const session = await peer.session();
      const { attemptToken } = session.assign();
      await until(() => calls.length === 1, "the handler");
      fault.break(stateDir);
      calls[0]!.finish({ outcome: "completed", output: "refused" });
      await events.next("acknowledged", ({ verdict }) => verdict === "invalid");
      await until(() => device.unacknowledged === 0, "the verdict is taken");
      const refused = session.assign();
      const rejection = await session.next("reject", ({ workId }) => workId === refused.workId);
      expect(rejection.message).toContain("disk");

      fault.mend(stateDir);
      const { path } = await events.next("set_aside");
      const bytes = readFileSync(path);
      expect(path).toContain(join("outbox", "rejected"));
      expect(path).toContain(attemptToken);
      expect(decodeRecord(bytes)).toMatchObject({ completion: { output: "refused" } });
    },
  );
});

test.each(["outbox", "outbox/rejected", "outbox/kept"])(
  "if %s is removed while the daemon runs, a stored result is kept and a refused one is set aside, on the disk",
  async (name) => {
    const peer = await startPeer();
    const stateDir = makeStateDir();
    const { onAssignment, calls } = manualHandler();
    const { events } = startDevice(peer.url, { stateDir, onAssignment });
    const session = await peer.session();
    for (const verdict of [CompletionVerdict.STORED, CompletionVerdict.INVALID]) {
      peer.completionVerdict = verdict;
      const count = calls.length;
      const { attemptToken } = session.assign();
      await until(() => calls.length === count + 1, "the handler");
      rmSync(join(stateDir, name), { recursive: true, force: true });
      calls.at(-1)!.finish({ outcome: "completed", output: "done" });
      if (verdict === CompletionVerdict.STORED) {
        await until(() => keptOf(stateDir).some((file) => file.includes(attemptToken)), "it is kept");
      } else {
        const { path } = await events.next("set_aside");
        expect(decodeRecord(readFileSync(path))).toMatchObject({ completion: { attemptToken } });
      }
    }
  },
);

test("a directory in the place of a record is moved aside, and the record is written", async () => {
  const directory = join(makeStateDir(), "outbox");
  const { outbox } = await Outbox.open(directory);
  const record = recordOf("done");
  mkdirSync(join(directory, fileOf(record), "full"), { recursive: true });
  await outbox.put(record);
  expect((await Outbox.open(directory)).entries).toHaveLength(1);
});

test.each(["outbox", "outbox/bad", "outbox/rejected", "outbox/kept"])(
  "a file or a broken link in the place of %s is moved aside, and the daemon starts",
  async (name) => {
    for (const put of [
      (path: string) => writeFileSync(path, "no directory"),
      (path: string) => symlinkSync("/nonexistent/directory", path),
      (path: string) => execFileSync("mkfifo", [path]),
    ]) {
      const peer = await startPeer();
      const stateDir = makeStateDir();
      const path = join(stateDir, name);
      mkdirSync(dirname(path), { recursive: true });
      put(path);
      const { onAssignment, calls } = manualHandler();
      const { device, events } = startDevice(peer.url, { stateDir, onAssignment });
      const session = await peer.session();
      session.assign();
      await until(() => calls.length === 1, "the handler");
      calls[0]!.finish({ outcome: "completed", output: "done" });
      await events.next("acknowledged");
      const aside = readdirSync(dirname(path)).filter((entry) => entry.startsWith(`${basename(path)}.`));
      expect(aside).toHaveLength(1);
      await device.close();
    }
  },
);

const recordOf = (output: string): OutboxRecord => ({
  completion: create(CompletionSchema, {
    workId: randomUUID(),
    attemptToken: randomUUID(),
    outcome: Outcome.COMPLETED,
    output,
  }),
  finishedAtMs: 1_700_000_000_000,
});
const fileOf = ({ completion }: OutboxRecord) => `${completion.workId}.${completion.attemptToken}.completion`;

test("a record that is torn at any byte, or has any byte flipped, is dropped and reported; complete ones are all there", async () => {
  const directory = join(makeStateDir(), "outbox");
  const { outbox } = await Outbox.open(directory);
  const complete = [recordOf("first"), recordOf("second"), recordOf("")];
  for (const record of complete) await outbox.put(record);
  const torn = recordOf("the last one, which was being written when the power went");
  const bytes = Buffer.from(encodeRecord(torn));
  const path = join(directory, fileOf(torn));
  const expectDropped = async (damaged: Uint8Array, what: string) => {
    writeFileSync(path, damaged);
    const opened = await Outbox.open(directory);
    expect([what, opened.entries.map(({ workId }) => workId).sort()]).toEqual([
      what,
      complete.map(({ completion }) => completion.workId).sort(),
    ]);
    expect([what, opened.setAside.map((aside) => aside.path)]).toEqual([
      what,
      [join(directory, "bad", fileOf(torn))],
    ]);
  };
  for (let length = 0; length < bytes.length; length += 1) {
    await expectDropped(bytes.subarray(0, length), `${length} bytes`);
  }
  for (let at = 0; at < bytes.length; at += 1) {
    const flipped = Buffer.from(bytes);
    flipped[at]! ^= 1 << (at % 8);
    await expectDropped(flipped, `byte ${at} flipped`);
  }
  await expectDropped(Buffer.concat([bytes, Buffer.from([0])]), "a byte more");
  writeFileSync(path, bytes);
  expect((await Outbox.open(directory)).entries).toHaveLength(4);
});

test("a note that is torn at any byte is removed, and one that cannot be read now stays", async () => {
  const stateDir = makeStateDir();
  const journal = new Journal(stateDir);
  const note = { workId: randomUUID(), attemptToken: "good", pid: 4_000_000, startTime: "boot:1" };
  await journal.write(note);
  const folder = join(stateDir, "attempts");
  const bytes = readFileSync(join(folder, "good.json"));
  for (let length = 0; length < bytes.length; length += 1) {
    writeFileSync(join(folder, "torn.json"), bytes.subarray(0, length));
    expect(await journal.read()).toEqual({ notes: [note], unreadable: [] });
    expect(readdirSync(folder)).toEqual(["good.json"]);
  }
  // Reading fails with ELOOP, in place of EIO or EACCES; root may read every file.
  mkdirSync(join(stateDir, "kept"));
  renameSync(join(folder, "good.json"), join(stateDir, "kept", "good.json"));
  symlinkSync(join(folder, "good.json"), join(folder, "good.json"));
  const { notes, unreadable } = await journal.read();
  expect(notes).toEqual([]);
  expect(unreadable).toMatchObject([
    { path: join(folder, "good.json"), problem: expect.stringContaining("ELOOP") },
  ]);
  expect(readdirSync(folder)).toEqual(["good.json"]);
  renameSync(join(stateDir, "kept", "good.json"), join(folder, "good.json"));
  expect((await journal.read()).notes).toEqual([note]);
});
