import { expect, test } from "vitest";
import { sweepSessions } from "../../../../src/server/device/hub/sweep.ts";

test("the attempts of very many sessions are listed in several turns of the event loop", async () => {
  let turn = 0;
  let isDone = false;
  const count = () => {
    turn++;
    if (!isDone) setImmediate(count);
  };
  const listedIn: number[] = [];
  const list = () => {
    listedIn.push(turn);
    return [];
  };
  const sessions = Array.from({ length: 1_000 }, () => ({ assignments: { list, out: { size: 0 } } }));
  count();
  await sweepSessions({
    db: {} as never,
    looks: { ask: async () => ({ isCancelling: false, isClaimed: false, isWaiting: {} }) } as never,
    registry: { sessions: () => sessions } as never,
    works: {} as never,
  });
  isDone = true;
  expect(listedIn).toHaveLength(1_000);
  const counts = [...new Set(listedIn)].map((one) => listedIn.filter((of) => of === one).length);
  expect(Math.max(...counts)).toBeLessThanOrEqual(128);
});
