import fc from "fast-check";
import { expect, test } from "vitest";
import {
  cutMiddle,
  KeptOutput,
  omissionMarker,
  omittedBytesOf,
} from "../../../clients/ts/src/kept-output.ts";

const pieces = (bytes: Buffer, sizes: number[]) => {
  const found: Buffer[] = [];
  for (let at = 0, step = 0; at < bytes.length; step++) {
    const size = sizes[step % sizes.length] ?? 1;
    found.push(bytes.subarray(at, at + size));
    at += size;
  }
  return found;
};

test("an answer that comes after a megabyte of noise is kept, and the beginning too", () => {
  const kept = new KeptOutput(1024 * 1024);
  kept.add(Buffer.from("it begins\n"));
  for (let i = 0; i < 50; i++) kept.add(Buffer.alloc(64 * 1024, "x"));
  kept.add(Buffer.from("\nthe answer is 42\n"));
  const text = kept.text();
  expect(kept.isCut).toBe(true);
  expect(text).toMatch(/^it begins\n/);
  expect(text).toMatch(/\nthe answer is 42\n$/);
  expect(Buffer.byteLength(text)).toBeLessThanOrEqual(1024 * 1024);
  const [head = "", tail = ""] = text.split(omissionMarker(omittedBytesOf(text)));
  expect(head.length).toBeGreaterThan(255 * 1024);
  expect(tail.length).toBeGreaterThan(767 * 1024);
  expect(head.length + tail.length + omittedBytesOf(text)).toBe(10 + 50 * 64 * 1024 + 18);
});

/** A replacement character in the kept text would tell a split character. */
const anyText = fc.string({ unit: "grapheme", maxLength: 400 }).filter((text) => !text.includes("\ufffd"));

test("whatever comes in whatever pieces: within the limit all of it, beyond it head, marker and tail that add up", () => {
  fc.assert(
    fc.property(
      anyText,
      fc.integer({ min: 0, max: 600 }),
      fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1 }),
      (whole, limit, sizes) => {
        const bytes = Buffer.from(whole);
        const kept = new KeptOutput(limit);
        for (const piece of pieces(bytes, sizes)) kept.add(piece);
        const text = kept.text();
        expect(text).not.toContain("\ufffd");
        expect(Buffer.byteLength(text)).toBeLessThanOrEqual(limit);
        if (bytes.length <= limit) {
          expect(text).toBe(whole);
          return;
        }
        if (limit <= 96) {
          expect(whole.endsWith(text)).toBe(true);
          return;
        }
        const omitted = omittedBytesOf(text);
        const [head = "", tail = ""] = text.split(omissionMarker(omitted));
        expect(whole.startsWith(head) && whole.endsWith(tail)).toBe(true);
        expect(Buffer.byteLength(head) + Buffer.byteLength(tail) + omitted).toBe(bytes.length);
        expect(cutMiddle(whole, limit, { isCut: false })).toEqual({ text, isCut: true });
      },
    ),
  );
});

test("what was cut once and is cut again says in one place how much is missing in all", () => {
  const whole = "a".repeat(2_000) + "b".repeat(2_000);
  const once = cutMiddle(whole, 1_000, { isCut: false }).text;
  const twice = cutMiddle(once, 500, { isCut: true }).text;
  expect(twice.match(/bytes omitted/g)).toHaveLength(1);
  expect(twice.length - omissionMarker(omittedBytesOf(twice)).length + omittedBytesOf(twice)).toBe(4_000);
  expect(twice).toMatch(/^a+\n… \[\d+ bytes omitted\] …\nb+$/);
});

test("a marker that the program printed itself costs nothing of its answer, whether cut before or not", () => {
  const printed = omissionMarker(7);
  const whole = `${"a".repeat(3_000)}${printed}the answer is 42`;
  const once = cutMiddle(whole, 1_000, { isCut: false }).text;
  expect(Buffer.byteLength(once)).toBeGreaterThan(900);
  expect(once).toMatch(/aaaa\n… \[7 bytes omitted\] …\nthe answer is 42$/);
  expect(omittedBytesOf(once)).toBeGreaterThan(2_000);
  const twice = cutMiddle(once, 500, { isCut: true }).text;
  expect(Buffer.byteLength(twice)).toBeGreaterThan(400);
  expect(twice).toMatch(/aaaa\n… \[7 bytes omitted\] …\nthe answer is 42$/);
  expect(omittedBytesOf(twice)).toBeGreaterThan(omittedBytesOf(once));
});

test("bytes that are no text are kept as replacement characters and do not harm", () => {
  const kept = new KeptOutput(200);
  kept.add(Buffer.alloc(1000, 0x80));
  expect(kept.text()).toContain("bytes omitted");
});
