import { expect, test } from "vitest";
import { Limit } from "../../../src/batches/limit.ts";

test("a limit lets so many run at once, the others in their order, also after a failure", async () => {
  const limit = new Limit(2);
  const begun: number[] = [];
  const gates = [0, 1, 2, 3].map(() => Promise.withResolvers<void>());
  const done = gates.map((gate, index) =>
    limit.run(() => {
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
