import { CompletionVerdict, HeldAttemptState } from "#gen/pinion/v1/device_pb.js";
import type { ConformanceCase } from "../case.ts";
import type { Names, ScriptedSession } from "../session.ts";
import type { Stage } from "../stage.ts";
import { expectThat } from "../verdict.ts";

/** Brings an attempt to its end without an acknowledgement. */
async function finish(stage: Stage, session: ScriptedSession): Promise<Names> {
  stage.script.acknowledges = false;
  const names = await stage.assign(session, "echo kept");
  await session.next("complete", "a completion", { of: names });
  stage.script.acknowledges = true;
  return names;
}

function expectHeld(session: ScriptedSession, names: Names, state: HeldAttemptState): void {
  const held = session.hello.held.find(({ attemptToken }) => attemptToken === names.attemptToken);
  const wanted = `hello.held with the attempt, HELD_ATTEMPT_STATE_${HeldAttemptState[state]}`;
  const seen = held ? `HELD_ATTEMPT_STATE_${HeldAttemptState[held.state]}` : "it is not listed";
  expectThat(held?.state === state, wanted, seen);
}

/** Expects the same result again, and no repeat after the acknowledgement. */
async function expectDelivered(stage: Stage, session: ScriptedSession, names: Names): Promise<void> {
  expectHeld(session, names, HeldAttemptState.FINISHED);
  const again = await session.next("complete", "the completion is sent again", { of: names });
  const first = stage.server.stored.get(names.attemptToken);
  expectThat(again.output === first?.output && again.outcome === first.outcome, "the same result", "another");
  await session.beats(2);
  const next = await stage.reconnect(session);
  expectThat(next.hello.held.length === 0, "an acknowledged result is forgotten", "the hello still lists it");
}

export const resultCases: ConformanceCase[] = [
  {
    name: "resend-after-reconnect",
    promise:
      "a completion that was not acknowledged is sent again after a reconnect, and forgotten once it is",
    async play(stage) {
      const first = await stage.open();
      const names = await finish(stage, first);
      await expectDelivered(stage, await stage.reconnect(first), names);
    },
  },
  {
    name: "resend-after-kill",
    promise: "a completion survives kill -9 of the daemon, and is sent again by the next one",
    async play(stage) {
      const names = await finish(stage, await stage.open());
      await expectDelivered(stage, await stage.restart(), names);
    },
  },
  {
    name: "superseded",
    promise:
      "a completion that is acknowledged as stored late or superseded is forgotten, an unknown one sent at most once more",
    async play(stage) {
      const first = await stage.open();
      const { STORED_LATE, SUPERSEDED, UNKNOWN } = CompletionVerdict;
      for (const verdict of [STORED_LATE, SUPERSEDED, UNKNOWN]) {
        stage.script.completionVerdict = verdict;
        const names = await stage.assign(first, "echo late");
        await first.next("complete", "a completion", { of: names });
      }
      await first.beats(2);
      const { hello } = await stage.reconnect(first);
      expectThat(hello.held.length === 0, "nothing is held any more", `${hello.held.length} attempts`);
    },
  },
  {
    name: "invalid",
    promise: "a completion that the server calls invalid is set aside, not sent for ever",
    async play(stage) {
      stage.script.completionVerdict = CompletionVerdict.INVALID;
      const first = await stage.open();
      const names = await stage.assign(first, "echo bad");
      await first.next("complete", "a completion", { of: names });
      await first.beats(2);
      const second = await stage.reconnect(first);
      await second.beats(2);
      const count = second.all("complete", names).length;
      expectThat(second.hello.held.length === 0 && count === 0, "it is not sent again", "it is held or sent");
    },
  },
  {
    name: "new-verdict",
    promise: "a completion whose verdict the daemon does not know is kept and sent again",
    async play(stage) {
      stage.script.completionVerdict = 99 as CompletionVerdict;
      const first = await stage.open();
      const names = await stage.assign(first, "echo kept");
      await first.next("complete", "a completion", { of: names });
      await first.beats(2);
      stage.script.completionVerdict = undefined;
      await expectDelivered(stage, await stage.reconnect(first), names);
    },
  },
  {
    name: "output-limits",
    promise: "output and results are cut to the limits of the welcome, and numbered upwards from 1",
    async play(stage) {
      const [chunkMax, outputMax] = [1_024, 4_096];
      Object.assign(stage.script, { outputChunkBytesMax: chunkMax, completionOutputBytesMax: outputMax });
      const session = await stage.open();
      const names = await stage.assign(
        session,
        // 20 KiB in a single write.
        "s=0123456789; for i in 1 2 3 4 5 6 7 8 9 10 11; do s=$s$s; done; printf %s $s",
      );
      const completion = await session.next("complete", "a completion", { of: names });
      const chunks = session.all("output", names);
      const largest = Math.max(0, ...chunks.map(({ data }) => data.length));
      expectThat(largest <= chunkMax, `output.data of at most ${chunkMax} bytes`, `${largest} bytes`);
      const sequences = chunks.map(({ sequence }) => sequence);
      expectThat(
        sequences.every((sequence, index) => sequence > (sequences[index - 1] ?? 0n)),
        "output.sequence grows from 1",
        sequences.slice(0, 10).join(", "),
      );
      const bytes = Buffer.byteLength(completion.output);
      expectThat(
        bytes <= outputMax && completion.isOutputTruncated,
        `complete.output of at most ${outputMax} bytes, is_output_truncated`,
        `${bytes} bytes, is_output_truncated ${completion.isOutputTruncated}`,
      );
    },
  },
];
