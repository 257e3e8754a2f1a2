import { expect, test } from "vitest";
import { sleep, within } from "../../../src/time/abort.ts";

/** Beyond the longest timer of Node, which fires at once. */
const months = 90 * 86_400_000;

const soon = () => new Promise((resolve) => setTimeout(resolve, 20, "soon"));

test("a wait of months is not over at once", async () => {
  const stop = new AbortController();
  expect(await Promise.race([sleep(months, stop.signal).then(() => "slept"), soon()])).toBe("soon");
  stop.abort();
  const given = Promise.withResolvers<string>();
  const waiting = within(given.promise, months);
  expect(await Promise.race([waiting, soon()])).toBe("soon");
  given.resolve("given");
  expect(await waiting).toBe("given");
});
