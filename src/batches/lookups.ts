import { Refusal } from "../errors.ts";
import { createBatcher } from "./batcher.ts";

/** Maximum look-ups of a statement, and those that wait. */
const perBatchMax = 500;
const waitingMax = 10_000;
const crowdedMs = 1_000;

/**
 * Look-ups of names that anybody may send, in any number: they travel together, so that a replica
 * asks with one statement at a time, however many callers guess. `run` answers in the order of the
 * names. Refuses with `resource_exhausted` while too many wait; `noun`: what the callers send, in
 * the plural.
 */
export function createLookups<Name, Row>(
  run: (names: readonly Name[]) => Promise<Row[]>,
  noun: string,
): (name: Name) => Promise<Row> {
  const { add } = createBatcher<Name, Row>({
    ...{ run, itemsMax: perBatchMax, queueMax: waitingMax },
    overflow: () =>
      new Refusal("resource_exhausted", `too many ${noun} at once`, { retryAfterMs: crowdedMs }),
  });
  return add;
}
