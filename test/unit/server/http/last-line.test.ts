/**
 * An uncaught exception ends one operation, is counted by its place of arrival, and does not fill
 * the log.
 */
import { EventEmitter } from "node:events";
import { expect, test } from "vitest";
import { createLastLine } from "../../../../src/server/http/port/last-line.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

function open() {
  const logged: Record<string, unknown>[] = [];
  const counted: string[] = [];
  const log = createLogger({
    level: "error",
    name: "test",
    destination: { write: (line: string) => void logged.push(JSON.parse(line)) },
  });
  return {
    logged,
    counted,
    line: createLastLine({ log, onUncaught: (origin) => void counted.push(origin) }),
  };
}

/** The owner of work, which is ended by `destroy`. */
const owner = (destroy: () => unknown) => ({ destroy });

test("a handler that throws and one that rejects end their own request, and are counted and logged", async () => {
  const { line, counted, logged } = open();
  const ended: string[] = [];
  line.run(
    owner(() => ended.push("thrown")),
    () => {
      throw new Error("at once");
    },
  );
  line.run(
    owner(() => ended.push("rejected")),
    () => Promise.reject(new Error("later")),
  );
  expect(
    line.run(
      owner(() => {}),
      () => 7,
    ),
  ).toBe(7);
  await new Promise(setImmediate);
  expect(ended).toEqual(["thrown", "rejected"]);
  expect(counted).toEqual(["handler", "handler"]);
  expect(logged.map(({ msg, err }) => [msg, (err as Error).message])).toEqual([
    ["a handler failed; its request was ended", "at once"],
    ["a handler failed; its request was ended", "later"],
  ]);
});

test("a listener that throws ends what its emitter belongs to; an error without a listener is the peer's matter", () => {
  const { line, counted } = open();
  const emitter = new EventEmitter();
  let ended = 0;
  line.guard(emitter, () => ended++);
  emitter.on("data", () => {
    throw new Error("in a listener");
  });
  expect(emitter.emit("data")).toBe(true);
  expect([ended, counted]).toEqual([1, ["callback"]]);
  expect(emitter.emit("error", new Error("ECONNRESET"))).toBe(false);
  expect([ended, counted]).toEqual([2, ["callback"]]);
});

test("guards share one function, and each ends its own emitter as it says", () => {
  const { line } = open();
  const ended: EventEmitter[] = [];
  const end = (emitter: EventEmitter) => void ended.push(emitter);
  const emitters = [new EventEmitter(), new EventEmitter()];
  for (const emitter of emitters) {
    line.guard(emitter, end);
    emitter.on("data", () => {
      throw new Error("in a listener");
    });
  }
  expect(emitters[0]!.emit).toBe(emitters[1]!.emit);
  emitters[1]!.emit("data");
  line.run(emitters[0]!, () => {
    throw new Error("of its work");
  });
  expect(ended).toEqual([emitters[1], emitters[0]]);
});

test("an error that arrives at the process is the request's in whose course it was thrown", () => {
  const { line, counted } = open();
  let ended = 0;
  line.run(
    owner(() => ended++),
    () => {
      line.uncaught(new Error("in a timer"), "uncaughtException");
      line.uncaught(new Error("of a promise"), "unhandledRejection");
    },
  );
  line.uncaught(new Error("nobody's"), "uncaughtException");
  expect([ended, counted]).toEqual([2, ["callback", "rejection", "process"]]);
});

test("beyond 60 in a minute they are counted and not logged, and an end that fails harms nothing", () => {
  const { line, counted, logged } = open();
  for (let count = 0; count < 100; count++) {
    line.run(
      owner(() => {
        if (count === 0) throw new Error("cannot end");
      }),
      () => {
        throw new Error("again");
      },
    );
  }
  expect([counted.length, logged.length]).toEqual([100, 61]);
});
