import { expect, test } from "vitest";
import { createBudget } from "../../../../src/scheduler/endings/endings.ts";

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
