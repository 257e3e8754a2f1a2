import fc from "fast-check";
import { expect, test } from "vitest";
import { truncateUtf8 } from "../../../clients/ts/src/device/completion.ts";

test("a text is cut to the longest prefix of whole characters that fits", () => {
  fc.assert(
    fc.property(fc.string({ unit: "grapheme", maxLength: 60 }), fc.nat(200), (text, bytesMax) => {
      const { text: cut, isTruncated } = truncateUtf8(text, bytesMax);
      expect(text.startsWith(cut)).toBe(true);
      expect(Buffer.byteLength(cut)).toBeLessThanOrEqual(bytesMax);
      expect(isTruncated).toBe(cut !== text);
      const rest = [...text.slice(cut.length)][0];
      if (rest !== undefined) expect(Buffer.byteLength(cut + rest)).toBeGreaterThan(bytesMax);
    }),
  );
});
