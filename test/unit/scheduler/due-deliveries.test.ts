import { expect, test } from "vitest";
import { choose, type Places } from "../../../src/scheduler/due-deliveries.ts";

const places: Places = {
  ...{ limit: 8, reserve: 3, perDestinationMax: 4, perOrgMax: 6, perOrgFew: 2 },
  busy: [],
};
const due = (orgId: string, destinationId: string, count: number) =>
  Array.from({ length: count }, (_, n) => ({ orgId, destinationId, id: `${destinationId}-${n}` }));
const idsOf = (found: readonly { id: string }[]) => found.map(({ id }) => id);

test("a destination and an org get their numbers of tries, the running ones among them", () => {
  expect(idsOf(choose(due("a", "x", 9), places))).toEqual(["x-0", "x-1", "x-2", "x-3"]);
  const busy = [{ orgId: "a", destinationId: "x", count: 3 }];
  expect(idsOf(choose([...due("a", "x", 9), ...due("a", "y", 9)], { ...places, busy }))).toEqual([
    ...["x-0", "y-0", "y-1"],
  ]);
  const full = [{ orgId: "a", destinationId: "z", count: 6 }];
  expect(choose(due("a", "x", 9), { ...places, busy: full })).toEqual([]);
});

test("the last places are for orgs with few tries, and an org with few comes first", () => {
  const found = [...due("a", "x", 4), ...due("a", "y", 4), ...due("b", "z", 4)];
  expect(idsOf(choose(found, places))).toEqual(["x-0", "z-0", "x-1", "z-1", "x-2"]);
  const busy = [{ orgId: "a", destinationId: "y", count: 3 }];
  expect(idsOf(choose(found, { ...places, busy }))).toEqual(["z-0", "z-1", "z-2", "x-0", "z-3"]);
});
