import { createServer } from "node:net";
import { Code, ConnectError } from "@connectrpc/connect";
import { expect, onTestFinished, test } from "vitest";
import { connectionTrouble } from "../../../src/cli/doctor/connection-trouble.ts";
import { exitCodes } from "../../../src/cli/failures.ts";

/** The address of a port that closes every connection. */
async function listen(): Promise<string> {
  const server = createServer((socket) => socket.destroy());
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  onTestFinished(() => void server.close());
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
}

test.each([
  ["read ECONNRESET", "ECONNRESET", Code.Aborted],
  ["socket hang up", "ECONNRESET", Code.Aborted],
  ["write EPIPE", "EPIPE", Code.Internal],
  ["read ECONNABORTED", "ECONNABORTED", Code.Internal],
  ["http/2 stream closed with error code CANCEL (0x8)", undefined, Code.Canceled],
])("%s: the other end has closed the connection", async (text, code, connectCode) => {
  const url = await listen();
  const cause = Object.assign(new Error(text), code && { code });
  const error = new ConnectError(text, connectCode, undefined, undefined, cause);
  const told = await connectionTrouble(error, url);
  expect(told?.message).toBe(`${url} closed the connection without an answer`);
  expect(told?.exitCode).toBe(exitCodes.unreachable);
});

test("an answer of the server that tells of another connection's end stays as it is", async () => {
  const url = await listen();
  const answer = new ConnectError("hooks.example: read ECONNRESET", Code.FailedPrecondition);
  expect(await connectionTrouble(answer, url)).toBeUndefined();
});
