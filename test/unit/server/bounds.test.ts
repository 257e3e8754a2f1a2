import { expect, test } from "vitest";
import { createBudget } from "../../../src/scheduler/endings/endings.ts";
import { createLimit } from "../../../src/server/device/session/opening.ts";

test("a limit lets so many run at once, the others in their order, also after a failure", async () => {
  const limit = createLimit(2);
  const begun: number[] = [];
  const gates = [0, 1, 2, 3].map(() => Promise.withResolvers<void>());
  const done = gates.map((gate, index) =>
    limit(() => {
      begun.push(index);
      return gate.promise;
    }),
  );
  await Promise.resolve();
  expect(begun).toEqual([0, 1]);
  gates[1]!.reject(new Error("failed"));
  await expect(done[1]).rejects.toThrow("failed");
  expect(begun).toEqual([0, 1, 2]);
  gates[0]!.resolve();
  await done[0];
  expect(begun).toEqual([0, 1, 2, 3]);
  gates[2]!.resolve();
  gates[3]!.resolve();
  await Promise.all([done[2], done[3]]);
});

test("a budget refuses what does not fit, and has room again when work is done", async () => {
  const budget = createBudget(10);
  const gate = Promise.withResolvers<void>();
  const first = budget(8, () => gate.promise);
  await expect(budget(3, async () => "no")).rejects.toMatchObject({ reason: "resource_exhausted" });
  expect(await budget(2, async () => "yes")).toBe("yes");
  gate.resolve();
  await first;
  expect(await budget(10, async () => "again")).toBe("again");
});
