import { expect, test, vi } from "vitest";

test("a wait has the patience of a busy machine, where it says no time of its own", async () => {
  let isDone = false;
  setTimeout(() => {
    isDone = true;
  }, 1_200);
  await vi.waitFor(() => expect(isDone).toBe(true));
  await expect(vi.waitFor(() => expect(isDone).toBe(false), 20)).rejects.toThrow("to be false");
});
