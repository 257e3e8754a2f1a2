import { Code } from "@connectrpc/connect";
import fc from "fast-check";
import { expect, test } from "vitest";
import { FrameReader, framed } from "../../../../src/server/device/stream/grpc-frames.ts";

function readAll(reader: FrameReader): Buffer[] {
  const messages: Buffer[] = [];
  for (let message = reader.next(); message; message = reader.next()) messages.push(Buffer.from(message));
  return messages;
}

test("messages come out as they went in, however their bytes are divided", () => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 17 }), { minLength: 1, maxLength: 40 }),
      (messages, sizes) => {
        const bytes = Buffer.concat(messages.map(framed));
        const reader = new FrameReader(1_000);
        const received: Buffer[] = [];
        for (let at = 0, turn = 0; at < bytes.length; turn++) {
          const size = sizes[turn % sizes.length]!;
          reader.push(bytes.subarray(at, at + size));
          at += size;
          received.push(...readAll(reader));
        }
        expect(received).toEqual(messages.map((message) => Buffer.from(message)));
        expect(reader.bytesLeft).toBe(0);
      },
    ),
  );
});

test("a message above the limit is refused before it has arrived", () => {
  const reader = new FrameReader(10);
  reader.push(framed(new Uint8Array(11)).subarray(0, 5));
  expect(() => reader.next()).toThrow(expect.objectContaining({ code: Code.ResourceExhausted }));
});

test("a message of the largest size is taken", () => {
  const reader = new FrameReader(10);
  reader.push(framed(new Uint8Array(10)));
  expect(reader.next()).toHaveLength(10);
});

test("a compressed message is refused", () => {
  const reader = new FrameReader(10);
  const frame = framed(new Uint8Array(1));
  frame[0] = 1;
  reader.push(frame);
  expect(() => reader.next()).toThrow(expect.objectContaining({ code: Code.Internal }));
});

test("bytes of a message that is not whole are counted", () => {
  const reader = new FrameReader(10);
  reader.push(framed(new Uint8Array(4)).subarray(0, 7));
  expect(reader.next()).toBeUndefined();
  expect(reader.bytesLeft).toBe(7);
});
