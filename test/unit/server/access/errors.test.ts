import { Code, type ConnectError } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { Refusal } from "../../../../src/errors.ts";
import {
  BadRequestSchema,
  RetryInfoSchema,
} from "../../../../src/server/access/interceptors/error-details.ts";
import { errorInterceptor, toConnectError } from "../../../../src/server/access/interceptors/errors.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";

function setUp() {
  const lines: Record<string, unknown>[] = [];
  const log = createLogger({
    level: "debug",
    name: "test",
    destination: { write: (line: string) => void lines.push(JSON.parse(line)) },
  });
  return { log, lines, convert: (error: unknown) => toConnectError(error, { log, rpc: "x/Y" }) };
}

/** The details as read by a client. */
function details(error: ConnectError) {
  return error.details.map((detail) => ("desc" in detail ? [detail.desc.typeName, detail.value] : []));
}

test("a refusal keeps its message, names its field, and says when to try again", () => {
  const { convert, lines } = setUp();
  const named = convert(new Refusal("invalid_argument", "bad zone", { field: "spec.time_zone" }));
  expect(named).toMatchObject({ code: Code.InvalidArgument, rawMessage: "bad zone" });
  expect(details(named)).toEqual([
    [BadRequestSchema.typeName, { fieldViolations: [{ field: "spec.time_zone", description: "bad zone" }] }],
  ]);
  const later = convert(new Refusal("aborted", "again", { retryAfterMs: 1_500 }));
  expect(later.code).toBe(Code.Aborted);
  expect(details(later)).toMatchObject([
    [RetryInfoSchema.typeName, { retryDelay: { seconds: 1n, nanos: 500_000_000 } }],
  ]);
  expect(lines).toEqual([]);
});

test("a refusal that quotes half a character can be sent", () => {
  const { convert } = setUp();
  const error = convert(new Refusal("invalid_argument", "unexpected \ud83d", { field: "spec.condition" }));
  expect(error.rawMessage).toBe("unexpected \ufffd");
  expect(() => encodeURIComponent(JSON.stringify(details(error)))).not.toThrow();
});

test("a database that is away is unavailable, and says when to try again", () => {
  const { convert } = setUp();
  const error = convert(Object.assign(new Error("connect ECONNREFUSED"), { code: "ECONNREFUSED" }));
  expect(error).toMatchObject({ code: Code.Unavailable, rawMessage: "the database is away" });
  expect(details(error)[0]?.[0]).toBe("google.rpc.RetryInfo");
});

test("what nobody foresaw is internal: the caller gets an id, the log the error under that id", () => {
  const { convert, lines } = setUp();
  const error = convert(new TypeError("secret column does not exist"));
  expect(error.code).toBe(Code.Internal);
  expect(error.rawMessage).toMatch(/^internal error, id [0-9a-f-]{36}$/);
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatchObject({ level: 50, rpc: "x/Y", err: { message: "secret column does not exist" } });
  expect(error.rawMessage).toContain(String(lines[0]!.errorId));
});

test("a deadlock that outlived its retries is aborted, and a NUL character is the caller's mistake", () => {
  const { convert } = setUp();
  expect(convert(Object.assign(new Error("deadlock"), { code: "40P01" })).code).toBe(Code.Aborted);
  expect(convert(Object.assign(new Error("invalid byte"), { code: "22021" })).code).toBe(
    Code.InvalidArgument,
  );
});

test("text that PostgreSQL's JSON cannot hold is the caller's mistake, another value that it cannot read is ours", () => {
  const { convert, lines } = setUp();
  const failed = (routine: string) => convert(Object.assign(new Error("syntax"), { code: "22P02", routine }));
  for (const routine of ["json_errsave_error", "json_ereport_error"]) {
    expect(failed(routine)).toMatchObject({
      code: Code.InvalidArgument,
      rawMessage: expect.stringContaining("surrogate"),
    });
  }
  expect(lines).toEqual([]);
  expect(failed("string_to_uuid").code).toBe(Code.Internal);
});

test("a query that ran into the statement timeout tells the caller to ask for less", () => {
  const { convert, lines } = setUp();
  const timeout = Object.assign(new Error("canceling statement due to statement timeout"), { code: "57014" });
  expect(convert(timeout)).toMatchObject({
    code: Code.DeadlineExceeded,
    rawMessage: "the query took too long; narrow the filter",
  });
  expect(lines).toMatchObject([{ level: 40, rpc: "x/Y" }]);
});

test("a caller that went away is no error worth a line", () => {
  const { log, lines } = setUp();
  const gone = new AbortController();
  gone.abort(new Error("gone"));
  const call = { log, rpc: "x/Y", signal: gone.signal };
  const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  expect(toConnectError(reset, call).code).toBe(Code.Canceled);
  expect(toConnectError(gone.signal.reason, call).code).toBe(Code.Canceled);
  expect(lines).toEqual([]);
  // An error in our own code stays internal, even if the caller has gone.
  expect(toConnectError(new TypeError("oops"), call).code).toBe(Code.Internal);
});

test("an error in the middle of a stream becomes a status too, and the stream's end is passed on", async () => {
  const { log } = setUp();
  let isReturned = false;
  async function* messages() {
    try {
      yield 1;
      throw new Refusal("not_found", "gone meanwhile");
    } finally {
      isReturned = true;
    }
  }
  const request = {
    stream: true,
    method: { name: "Y", parent: { typeName: "x" } },
    signal: new AbortController().signal,
  };
  const call = errorInterceptor({ log })((async () => ({ stream: true, message: messages() })) as never);
  const failing = (await call(request as never)) as unknown as { message: AsyncIterable<number> };
  const seen: number[] = [];
  await expect(
    (async () => {
      for await (const message of failing.message) seen.push(message);
    })(),
  ).rejects.toMatchObject({ code: Code.NotFound });
  expect(seen).toEqual([1]);

  isReturned = false;
  const left = (await call(request as never)) as unknown as { message: AsyncIterable<number> };
  for await (const _ of left.message) break;
  expect(isReturned).toBe(true);
});
