import { writeFile } from "node:fs/promises";
import { within } from "../../../../time/abort.ts";
import type { ConformanceCase } from "../case.ts";
import { expectThat, Wrong } from "../verdict.ts";

export const heartbeatCases: ConformanceCase[] = [
  {
    name: "heartbeat-interval",
    promise: "heartbeats go up as messages at the interval of the welcome, numbered from 1",
    async play(stage) {
      const session = await stage.open();
      const count = 6;
      for (let beat = 0; beat < count; beat++) await session.next("heartbeat", "heartbeats go on");
      const beats = session.received.filter(({ message }) => message.case === "heartbeat").slice(0, count);
      const { heartbeatMs } = stage.script;
      const meanMs = (beats.at(-1)!.at - beats[0]!.at) / (beats.length - 1);
      // Single heartbeats may be late on a busy machine, so the mean interval is checked.
      expectThat(
        meanMs > heartbeatMs * 0.6 && meanMs < heartbeatMs * 1.5,
        `a heartbeat every ${heartbeatMs} ms`,
        `one every ${Math.round(meanMs)} ms`,
      );
      const sequences = session.all("heartbeat").map(({ sequence }) => Number(sequence));
      expectThat(
        sequences.every((sequence, index) => sequence === index + 1),
        "sequence 1, 2, 3, … on each stream",
        sequences.join(", "),
      );
    },
  },
  {
    name: "heartbeat-lists",
    promise: "a heartbeat lists what runs, and what ended and is not acknowledged",
    async play(stage) {
      stage.script.acknowledges = false;
      const session = await stage.open();
      const marker = stage.file("go");
      const names = await stage.assign(session, `while [ ! -e ${marker} ]; do sleep 0.1; done`);
      const isListed = (beat: { attempts: { attemptToken: string }[] }) =>
        beat.attempts.some(({ attemptToken }) => attemptToken === names.attemptToken);
      await session.beats(1);
      expectThat(isListed(await session.beats(1)), "the running attempt is listed", "it is not");
      await writeFile(marker, "");
      await session.next("complete", "the attempt is completed", { of: names });
      await session.beats(1);
      expectThat(
        isListed(await session.beats(1)),
        "an ended attempt is listed until its completion is acknowledged",
        "it is not, so a server would call it lost",
      );
    },
  },
  {
    name: "silence",
    promise: "a stream on which nothing came for the TTL is closed by the daemon, and another one opened",
    async play(stage) {
      stage.script.ttlMs = 2_000;
      const session = await stage.open();
      await session.next("heartbeat", "heartbeats go on");
      stage.script.answersHeartbeats = false;
      const silentAt = performance.now();
      const ended = await within(
        session.closed.then(() => true),
        stage.script.ttlMs + stage.options.patienceMs,
      );
      if (!ended)
        throw new Wrong(`the stream is closed after ${stage.script.ttlMs} ms of silence`, "it stays open");
      const tookMs = performance.now() - silentAt;
      expectThat(tookMs > 1_000, "the TTL is waited for", `closed after ${Math.round(tookMs)} ms`);
      stage.script.answersHeartbeats = true;
      await stage.server.session("another stream after the silent one");
    },
  },
];
