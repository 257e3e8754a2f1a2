/** A daemon answers a turn: the program, its input, and the files of its snapshots. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import {
  CompletionVerdict,
  HeldAttemptState,
  HeldVerdict,
  Outcome,
  RejectReason,
  type TurnAssignmentSchema,
} from "#gen/pinion/v1/device_pb.js";
import type { PeerSession } from "../../support/peer-session.ts";
import { makeStateDir, startDaemon, startPeer } from "./harness.ts";

const shell = (script: string, more = "") => `
[device]
default_executor = "test"
[executors.test]
command = ${JSON.stringify(["sh", "-c", script])}
kill_grace = "200ms"
${more}
`;

const assignTurn = (session: PeerSession, turn: MessageInitShape<typeof TurnAssignmentSchema> = {}) =>
  session.assign({
    turn: {
      conversationId: "pinion-default_ada_local",
      messageId: "m1",
      input: "hello",
      usesSnapshot: true,
      ...turn,
    },
  });

const bytes = (text: string) => new Uint8Array(Buffer.from(text));
const snapshotsOf = (stateDir: string) => {
  const directory = join(stateDir, "files");
  return existsSync(directory) ? readdirSync(directory) : [];
};

test("a program reads the message, is given the snapshot, and leaves the next one; its output is the reply", async () => {
  const peer = await startPeer();
  const daemon = startDaemon(
    peer.url,
    shell(
      'cat "$PINION_SNAPSHOT_IN"; echo " + $(cat)"; printf "seen %s" "$PINION_MESSAGE_ID" > "$PINION_SNAPSHOT_OUT"',
    ),
  );
  const session = await peer.session();
  const assignment = assignTurn(session, { snapshot: bytes("before"), snapshotVersion: 3n });
  const completion = await session.next("complete");
  expect(completion).toMatchObject({
    workId: assignment.workId,
    outcome: Outcome.COMPLETED,
    output: "before + hello\n",
  });
  expect(Buffer.from(completion.nextSnapshot!).toString()).toBe("seen m1");
  await daemon.events.next("acknowledged");
  expect(snapshotsOf(daemon.stateDir)).toEqual([]);
  expect(peer.violations).toEqual([]);
});

test("a program knows what its turn is about, and what there is of snapshots", async () => {
  const peer = await startPeer();
  startDaemon(peer.url, shell("env | grep ^PINION_ | sort"));
  const session = await peer.session();
  const environment = async (turn: MessageInitShape<typeof TurnAssignmentSchema>) => {
    const assignment = assignTurn(session, turn);
    const { output, nextSnapshot } = await session.next("complete");
    expect(nextSnapshot).toBeUndefined();
    expect(output).not.toContain(assignment.attemptToken);
    const names = output.split("\n").map((line) => line.split("=")[0]!);
    expect(output).toContain(`PINION_TURN_ID=${assignment.workId}\n`);
    expect(output).toContain("PINION_CONVERSATION_ID=pinion-default_ada_local\n");
    expect(output).toContain("PINION_MESSAGE_ID=m1\n");
    return names.filter((name) => name.startsWith("PINION_SNAPSHOT"));
  };
  expect(await environment({})).toEqual(["PINION_SNAPSHOT_OUT"]);
  expect(await environment({ snapshotVersion: 1n, snapshot: bytes("x") })).toEqual([
    "PINION_SNAPSHOT_IN",
    "PINION_SNAPSHOT_OUT",
  ]);
  expect(await environment({ usesSnapshot: false })).toEqual([]);
});

test("with stdin = assignment the program reads the turn as JSON, and its snapshot from the file", async () => {
  const peer = await startPeer();
  startDaemon(peer.url, shell("cat", 'stdin = "assignment"'));
  const session = await peer.session();
  assignTurn(session, { snapshotVersion: 1n, snapshot: bytes("secret") });
  const { output } = await session.next("complete");
  const told = JSON.parse(output);
  expect(told.turn).toMatchObject({ input: "hello", messageId: "m1", snapshotVersion: "1" });
  expect(told.turn.snapshot).toBeUndefined();
});

test("a snapshot that is too large fails the turn; one of a program that failed is not sent", async () => {
  const peer = await startPeer();
  startDaemon(
    peer.url,
    shell('read size; head -c "$size" /dev/zero > "$PINION_SNAPSHOT_OUT"; [ "$size" -gt 1 ]'),
  );
  const session = await peer.session();
  assignTurn(session, { input: "1048577\n" });
  const tooLarge = await session.next("complete");
  expect(tooLarge).toMatchObject({
    outcome: Outcome.FAILED,
    reason: "the snapshot that it left in PINION_SNAPSHOT_OUT cannot be used: it is larger than 1 MiB",
  });
  expect(tooLarge.nextSnapshot).toBeUndefined();
  assignTurn(session, { input: "1048576\n" });
  expect((await session.next("complete")).nextSnapshot).toHaveLength(1_048_576);
  assignTurn(session, { input: "1\n" });
  const failed = await session.next("complete");
  expect([failed.outcome, failed.nextSnapshot]).toEqual([Outcome.FAILED, undefined]);
});

test("a reply is kept with its snapshot until it is acknowledged, over a restart", async () => {
  const peer = await startPeer();
  peer.acknowledges = false;
  peer.heldVerdict = () => HeldVerdict.SEND_RESULT;
  const config = shell('echo reply; printf s1 > "$PINION_SNAPSHOT_OUT"');
  const first = startDaemon(peer.url, config);
  const session = await peer.session();
  const assignment = assignTurn(session);
  await session.next("complete");
  await first.stop();
  const second = startDaemon(peer.url, config, { stateDir: first.stateDir });
  const again = await peer.session();
  expect(again.hello.held).toMatchObject([
    { attemptToken: assignment.attemptToken, state: HeldAttemptState.FINISHED },
  ]);
  const repeated = await again.next("complete");
  expect(repeated).toMatchObject({ attemptToken: assignment.attemptToken, output: "reply\n" });
  expect(Buffer.from(repeated.nextSnapshot!).toString()).toBe("s1");
  again.acknowledge(assignment, CompletionVerdict.SUPERSEDED);
  await second.events.next("acknowledged");
});

test("snapshots that a killed daemon left behind are removed at the start", async () => {
  const stateDir = makeStateDir();
  mkdirSync(join(stateDir, "files", "old"), { recursive: true });
  writeFileSync(join(stateDir, "files", "old", "in"), "secret");
  const peer = await startPeer();
  startDaemon(peer.url, shell("true"), { stateDir });
  await peer.session();
  expect(snapshotsOf(stateDir)).toEqual([]);
});

test("a turn that says nothing about itself is turned down", async () => {
  const peer = await startPeer();
  startDaemon(peer.url, shell("true"));
  const session = await peer.session();
  session.assign({ turn: null });
  expect((await session.next("reject")).reason).toBe(RejectReason.INVALID);
});
