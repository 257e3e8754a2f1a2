import fc from "fast-check";
import { expect, test } from "vitest";
import { Redaction, secretsOf } from "../../../clients/ts/src/runner/redaction.ts";

const token = "pin_dev_AbCdEfGhIjKlMnOpQrStUvWxYz0123_89abcdef";
const random = "AbCdEfGhIjKlMnOpQrStUvWxYz0123";
const secrets = secretsOf(token);

function through(pieces: Buffer[]): { text: string; count: number } {
  const redaction = new Redaction(secrets);
  const out = [...pieces.map((piece) => redaction.add(piece)), redaction.end()];
  return { text: Buffer.concat(out).toString("latin1"), count: redaction.count };
}

test("a token is taken out wherever the chunks are cut, and nothing else is changed", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.oneof(fc.string({ unit: "binary" }), fc.constant(token), fc.constant(random.slice(0, 12))),
        {
          maxLength: 6,
        },
      ),
      fc.array(fc.integer({ min: 1, max: 40 }), { minLength: 1, maxLength: 20 }),
      (parts, sizes) => {
        const whole = Buffer.from(parts.join("\u0000"), "utf8");
        const pieces: Buffer[] = [];
        for (let at = 0, step = 0; at < whole.length; step++) {
          const size = sizes[step % sizes.length] ?? 1;
          pieces.push(whole.subarray(at, at + size));
          at += size;
        }
        const { text, count } = through(pieces);
        expect(text).not.toContain(random);
        expect(count).toBe(parts.filter((part) => part === token).length);
        expect(text).toBe(whole.toString("latin1").replaceAll(random, "[hidden by pinion]"));
      },
    ),
  );
});

test("the token is found in part and in base64; a text that ends in its beginning is not lost", () => {
  expect(through([Buffer.from(`x ${random} y`)]).text).toBe("x [hidden by pinion] y");
  expect(through([Buffer.from(Buffer.from(token).toString("base64"))]).text).not.toContain("cGluX2Rldl");
  expect(through([Buffer.from("it begins pin_dev_Ab")]).text).toBe("it begins pin_dev_Ab");
});

test("what could be no secret holds nothing back", () => {
  expect(new Redaction(secrets).add(Buffer.from("a prompt> ")).toString()).toBe("a prompt> ");
  expect(secretsOf("short")).toEqual([]);
});
