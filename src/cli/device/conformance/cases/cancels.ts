import { randomUUID } from "node:crypto";
import type { ConformanceCase } from "../case.ts";
import { isAtWork } from "../gone.ts";
import { expectThat } from "../verdict.ts";
import { familyOf } from "./verdicts.ts";

export const cancelCases: ConformanceCase[] = [
  {
    name: "cancel",
    promise: "a cancel is answered with cancelled once the whole process group is gone",
    async play(stage) {
      const session = await stage.open();
      const names = await stage.assign(session, `trap 'sleep 2; exit' TERM; ${familyOf(stage.file("pids"))}`);
      const pids = (await stage.lines("pids", 2)).map(Number);
      session.cancel(names);
      await session.next("cancelled", "cancelled", { of: names });
      const left = pids.filter(isAtWork);
      expectThat(
        left.length === 0,
        "no process is left when cancelled comes",
        `${left.length} of ${pids.length}`,
      );
      await session.beats(2);
      expectThat(
        session.all("complete", names).length === 0,
        "cancelled, and no completion",
        "a completion too",
      );
    },
  },
  {
    name: "cancel-stubborn",
    promise: "a program that ignores SIGTERM is killed",
    async play(stage) {
      const session = await stage.open();
      const names = await stage.assign(
        session,
        `trap '' TERM; echo $$ >> ${stage.file("pids")}; i=0; while [ $i -lt 60 ]; do sleep 1; i=$((i+1)); done`,
      );
      const pids = (await stage.lines("pids", 1)).map(Number);
      session.cancel(names);
      await session.next("cancelled", "cancelled, after SIGKILL", { of: names });
      expectThat(!pids.some(isAtWork), "the process is gone when cancelled comes", "it still runs");
    },
  },
  {
    name: "cancel-unknown",
    promise: "a cancel of an attempt that is not there is answered with cancelled at once",
    async play(stage) {
      const session = await stage.open();
      const names = { workId: randomUUID(), attemptToken: randomUUID() };
      session.cancel(names);
      await session.next("cancelled", "cancelled", { of: names });
    },
  },
];
