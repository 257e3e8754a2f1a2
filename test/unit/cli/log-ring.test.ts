import { expect, test } from "vitest";
import { LogRing } from "../../../src/cli/device/log-ring.ts";

test("the ring holds the latest lines within its bounds, with their times", () => {
  const ring = new LogRing([]);
  for (let line = 1; line <= 600; line++) ring.push(line * 1000, `line ${line}`);
  expect(ring.excerpt(2)).toEqual({
    text: "1970-01-01T00:09:59.000Z  line 599\n1970-01-01T00:10:00.000Z  line 600",
    isTruncated: true,
  });
  ring.push(0, "ü".repeat(5_000));
  for (let line = 0; line < 100; line++) ring.push(0, "ü".repeat(1_000));
  expect(Buffer.byteLength(ring.excerpt(500).text)).toBeLessThanOrEqual(32 * 1024);
});

test("tokens and named secrets are struck out, also within words", () => {
  const ring = new LogRing(["the-house-secret", "", "short"]);
  ring.push(0, "with pin_dev_AbC123_x9 and xthe-house-secretx, a short word");
  expect(ring.excerpt(10).text).toBe("1970-01-01T00:00:00.000Z  with pin_dev_… and x…x, a short word");
});
