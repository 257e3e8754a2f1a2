import { create } from "@bufbuild/protobuf";
import { expect, test } from "vitest";
import { type ConnectRequest, ConnectRequestSchema } from "#gen/pinion/v1/device_pb.js";
import {
  CONTROL_QUEUE_MAX,
  OUTPUT_QUEUE_BYTES_MAX,
  Outbound,
} from "../../../clients/ts/src/device/outbound.ts";

const output = (sequence: number) =>
  create(ConnectRequestSchema, { message: { case: "output", value: { sequence: BigInt(sequence) } } });
const accept = (workId: string) =>
  create(ConnectRequestSchema, { message: { case: "accept", value: { workId } } });
const heartbeat = (sequence: number) =>
  create(ConnectRequestSchema, { message: { case: "heartbeat", value: { sequence: BigInt(sequence) } } });

function outbound() {
  const written: ConnectRequest["message"][] = [];
  const taken: (() => void)[] = [];
  let overflows = 0;
  const lanes = new Outbound(
    (message, done) => {
      written.push(message.message);
      taken.push(done);
    },
    () => {
      overflows += 1;
    },
  );
  return { lanes, written, takeNext: () => taken.shift()?.(), overflows: () => overflows };
}

test("control goes ahead of all the output that waits, and heartbeats ahead of control", () => {
  const { lanes, written, takeNext } = outbound();
  lanes.open();
  for (let sequence = 1; sequence <= 3; sequence++) lanes.output(output(sequence), 10);
  lanes.control(accept("a"));
  lanes.control(heartbeat(1));
  for (let round = 0; round < 5; round++) takeNext();
  expect(written.map(({ case: name }) => name)).toEqual([
    "output",
    "heartbeat",
    "accept",
    "output",
    "output",
  ]);
});

test("a heartbeat that could not be sent is replaced by the next one", () => {
  const { lanes, written, takeNext } = outbound();
  lanes.open();
  lanes.control(accept("a"));
  for (let sequence = 1; sequence <= 9; sequence++) lanes.control(heartbeat(sequence));
  takeNext();
  takeNext();
  expect(written.slice(1)).toMatchObject([{ case: "heartbeat", value: { sequence: 9n } }]);
});

test("output that waits is bounded; what is beyond is dropped", () => {
  const { lanes } = outbound();
  lanes.open();
  let accepted = 0;
  for (let sequence = 0; sequence < 100; sequence++)
    if (lanes.output(output(sequence), 32_768)) accepted += 1;
  expect(accepted).toBe(1 + OUTPUT_QUEUE_BYTES_MAX / 32_768);
});

test("a flood is thinned to the rate even if the transport takes everything", () => {
  let bytes = 0;
  const lanes = new Outbound(
    (_message, done) => done(),
    () => {},
  );
  lanes.open();
  for (let sequence = 0; sequence < 10_000; sequence++)
    if (lanes.output(output(sequence), 32_768)) bytes += 32_768;
  expect(bytes).toBeLessThan(4 * 1024 * 1024);
});

test("a peer that reads no control is reported", () => {
  const { lanes, overflows } = outbound();
  lanes.open();
  for (let index = 0; index <= CONTROL_QUEUE_MAX; index++) lanes.control(accept(String(index)));
  expect(overflows()).toBe(0);
  lanes.control(accept("one too many"));
  expect(overflows()).toBe(1);
});

test("a transport that takes messages at once does not grow the stack", () => {
  let count = 0;
  const lanes = new Outbound(
    (_message, done) => {
      count += 1;
      done();
    },
    () => {},
  );
  for (let index = 0; index < CONTROL_QUEUE_MAX; index++) lanes.control(accept(String(index)));
  lanes.open();
  expect(count).toBe(CONTROL_QUEUE_MAX);
});
