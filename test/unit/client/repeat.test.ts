import { Code, ConnectError, createClient, createRouterTransport } from "@connectrpc/connect";
import { expect, test } from "vitest";
import { TokenKind, TokenService } from "#gen/pinion/v1/token_pb.js";
import { repeatLost } from "../../../clients/ts/src/ops/repeat.ts";

/** A server that loses its first answers, and the received request ids. */
function losing(count: number, code: Code) {
  const asked: string[] = [];
  const transport = createRouterTransport(
    (router) =>
      void router.service(TokenService, {
        createToken(request) {
          asked.push(request.requestId);
          if (asked.length <= count) throw new ConnectError("gone", code);
          return { secret: "s" };
        },
        listTokens() {
          asked.push("list");
          throw new ConnectError("gone", code);
        },
      }),
    { transport: { interceptors: [repeatLost] } },
  );
  return { asked, tokens: createClient(TokenService, transport) };
}

const request = { kind: TokenKind.PAT, label: "x", scopes: ["read"] };

test("a write whose answer was lost is repeated with the same request_id, and each call has its own", async () => {
  const { asked, tokens } = losing(2, Code.Unavailable);
  expect((await tokens.createToken(request)).secret).toBe("s");
  expect(asked).toHaveLength(3);
  expect(new Set(asked).size).toBe(1);
  await tokens.createToken(request);
  expect(asked[3]).not.toBe(asked[0]);
  await tokens.createToken({ ...request, requestId: "mine" });
  expect(asked[4]).toBe("mine");
});

test("it is given up after three times; what the server refused, and what creates nothing, is not repeated", async () => {
  const lost = losing(9, Code.Unavailable);
  await expect(lost.tokens.createToken(request)).rejects.toMatchObject({ code: Code.Unavailable });
  expect(lost.asked).toHaveLength(3);
  const refused = losing(9, Code.PermissionDenied);
  await expect(refused.tokens.createToken(request)).rejects.toMatchObject({ code: Code.PermissionDenied });
  expect(refused.asked).toHaveLength(1);
  await expect(lost.tokens.listTokens({})).rejects.toMatchObject({ code: Code.Unavailable });
  expect(lost.asked).toHaveLength(4);
});
