/**
 * Browsers signed in by a link or a token, and commands that log in: the valid credentials, single
 * use, and lifetimes.
 */
import { Code } from "@connectrpc/connect";
import { createClients, PinionError } from "@pinion/client";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LoginState, SignInMethod } from "#gen/pinion/v1/sign_in_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });
let replica: TestReplica;

beforeAll(async () => {
  replica = await openTestReplica(database.url, { PINION_FAILURES_PER_ADDRESS: "0" });
});
afterAll(() => replica.stop());

// biome-ignore lint/suspicious/noExplicitAny: an answer in JSON, of whatever rpc.
type Json = Record<string, any>;
type Answer = { status: number; body: Json; setCookie: string };

/** A call like a browser's. */
async function call(rpc: string, body: object, headers: Record<string, string> = {}): Promise<Answer> {
  const response = await fetch(`${replica.url}/pinion.v1.${rpc}`, {
    method: "POST",
    headers: { "content-type": "application/json", "connect-protocol-version": "1", ...headers },
    body: JSON.stringify(body),
  });
  return {
    status: response.status,
    body: (await response.json()) as Json,
    setCookie: response.headers.get("set-cookie") ?? "",
  };
}

const cookieOf = ({ setCookie }: Answer) => setCookie.split(";")[0]!;
const sameOrigin = { "sec-fetch-site": "same-origin" };
const codeOf = (path: string) => new URLSearchParams(path.split("?")[1]).get("code")!;

async function signedIn(): Promise<string> {
  const answer = await call("SignInService/SignIn", { token: replica.token });
  expect(answer.status).toBe(200);
  return cookieOf(answer);
}

async function refusal(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => "",
    (error) => (error instanceof PinionError ? Code[error.code]! : String(error)),
  );
}

describe("a cookie", () => {
  test("is what no script reads and no other site sends, and lets in whoever it was given to", async () => {
    const answer = await call("SignInService/SignIn", { token: replica.token });
    const port = new URL(replica.url).port;
    expect(answer.setCookie).toMatch(
      new RegExp(`^pinion_${port}=pin_pat_\\w+; Path=/; HttpOnly; SameSite=Strict; Max-Age=\\d+$`),
    );
    expect(JSON.stringify(answer.body)).not.toContain("pin_pat_");
    const cookie = cookieOf(answer);
    const caller = await call("SignInService/GetCaller", {}, { cookie, ...sameOrigin });
    expect(caller.body).toMatchObject({
      orgId: "local",
      role: "MEMBER_ROLE_OWNER",
      signInId: answer.body.signIn.id,
    });
  });

  test("counts for nothing in a request that another site made", async () => {
    const cookie = await signedIn();
    const asked = (headers: Record<string, string>) =>
      call("OrgService/GetOrg", {}, { cookie, ...headers }).then(({ status }) => status);
    expect(await asked(sameOrigin)).toBe(200);
    expect(await asked({})).toBe(200);
    expect(await asked({ origin: replica.url })).toBe(200);
    expect(await asked({ "sec-fetch-site": "same-site" })).toBe(401);
    expect(await asked({ "sec-fetch-site": "cross-site" })).toBe(401);
    expect(await asked({ origin: "https://elsewhere.example" })).toBe(401);
    expect(await asked({ origin: "null" })).toBe(401);
    // A GET is the request of a link or an image on another site.
    const get = await fetch(
      `${replica.url}/pinion.v1.TokenService/ListTokens?connect=v1&encoding=json&message=%7B%7D`,
      { headers: { cookie, ...sameOrigin } },
    );
    expect(get.status).toBe(401);
  });

  test("a call that brings a token of its own is judged by that", async () => {
    const cookie = await signedIn();
    const answer = await call(
      "OrgService/GetOrg",
      {},
      { cookie, ...sameOrigin, authorization: "Bearer pin_pat_no" },
    );
    expect(answer.status).toBe(401);
  });

  test("is no good after signing out, nor after somebody ended it from elsewhere", async () => {
    const { signIns } = replica.clients;
    const [first, second] = [await signedIn(), await signedIn()];
    const out = await call("SignInService/SignOut", {}, { cookie: first, ...sameOrigin });
    expect(out.setCookie).toContain("Max-Age=0");
    expect((await call("OrgService/GetOrg", {}, { cookie: first, ...sameOrigin })).status).toBe(401);
    const caller = await call("SignInService/GetCaller", {}, { cookie: second, ...sameOrigin });
    const listed = (await signIns.listSignIns({})).signIns;
    expect(listed.find(({ id }) => id === caller.body.signInId)).toMatchObject({
      method: SignInMethod.TOKEN,
      address: "127.0.0.1",
      current: false,
    });
    await signIns.endSignIn({ signInId: caller.body.signInId });
    expect((await call("OrgService/GetOrg", {}, { cookie: second, ...sameOrigin })).status).toBe(401);
    expect((await signIns.listSignIns({})).signIns.map(({ id }) => id)).not.toContain(caller.body.signInId);
  });

  test("ends with the token that it was made with, may do no more, and is listed among no tokens", async () => {
    const { tokens } = replica.clients;
    const { secret, token } = await tokens.createToken({
      kind: TokenKind.PAT,
      label: "page",
      scopes: ["read"],
    });
    const cookie = cookieOf(await call("SignInService/SignIn", { token: secret }));
    expect((await call("OrgService/GetOrg", {}, { cookie, ...sameOrigin })).status).toBe(200);
    expect((await call("FleetService/CreateJoinCode", {}, { cookie, ...sameOrigin })).status).toBe(403);
    expect((await tokens.listTokens({ pageSize: 500 })).tokens.map(({ label }) => label)).not.toContain(
      "browser",
    );
    await tokens.revokeToken({ tokenId: token!.id });
    expect((await call("OrgService/GetOrg", {}, { cookie, ...sameOrigin })).status).toBe(401);
  });

  test("a service and a device sign in no browser", async () => {
    const { tokens } = replica.clients;
    const { secret } = await tokens.createToken({ kind: TokenKind.SVC, label: "ci", scopes: ["read"] });
    const answer = await call("SignInService/SignIn", { token: secret });
    expect(answer.body.code).toBe("failed_precondition");
    expect(answer.setCookie).toBe("");
  });
});

describe("a link", () => {
  test("lets in once, within five minutes, and no longer than the token that made it is good", async () => {
    const { signIns, tokens } = replica.clients;
    const { path, expiresAt } = await signIns.createSignInLink({ place: "/runs?state=failed" });
    expect(path).toMatch(/^\/#\/sign-in\?code=\w+&to=%2Fruns%3Fstate%3Dfailed$/);
    expect(Number(expiresAt!.seconds) * 1_000 - Date.now()).toBeLessThanOrEqual(300_500);
    const twice = await Promise.all(
      [1, 2].map(() => call("SignInService/SignIn", { linkCode: codeOf(path) })),
    );
    expect(twice.map(({ status }) => status).sort()).toEqual([200, 401]);

    const late = codeOf((await signIns.createSignInLink({})).path);
    await sql`update sign_in_code set expires_at = now() where kind = 'link' and used_at is null`.execute(
      database.db,
    );
    expect((await call("SignInService/SignIn", { linkCode: late })).body.message).toMatch(
      /older than 5 minutes/,
    );

    const { secret, token } = await tokens.createToken({
      kind: TokenKind.PAT,
      label: "x",
      scopes: ["write"],
    });
    const mine = createClients({ url: replica.url, token: secret });
    const orphan = codeOf((await mine.signIns.createSignInLink({})).path);
    mine.close();
    await tokens.revokeToken({ tokenId: token!.id });
    expect((await call("SignInService/SignIn", { linkCode: orphan })).status).toBe(401);
  });
});

describe("a command that logs in", () => {
  test("gets a token of the person who confirms its code, once", async () => {
    const { signIns } = replica.clients;
    const stranger = createClients({ url: replica.url });
    const started = await stranger.signIns.startLogin({ clientName: "pinion on lab-box" });
    expect(started.userCode).toMatch(/^[B-Z]{4}-[B-Z]{4}$/);
    const finish = () => stranger.signIns.finishLogin({ deviceCode: started.deviceCode });
    expect((await finish()).state).toBe(LoginState.PENDING);
    const typed = started.userCode.toLowerCase().replace("-", " ");
    expect(await signIns.getLogin({ userCode: typed })).toMatchObject({
      clientName: "pinion on lab-box",
      address: "127.0.0.1",
      state: LoginState.PENDING,
    });
    await signIns.decideLogin({ userCode: typed, confirm: true });
    expect(await refusal(signIns.decideLogin({ userCode: typed, confirm: false }))).toBe(
      "FailedPrecondition",
    );
    const { state, secret, orgId } = await finish();
    expect([state, orgId]).toEqual([LoginState.CONFIRMED, "local"]);
    expect(await refusal(finish())).toBe("Unauthenticated");
    const command = createClients({ url: replica.url, token: secret });
    expect((await command.signIns.getCaller({})).scopes.sort()).toEqual(["admin", "read", "write"]);
    command.close();
    stranger.close();
  });

  test("gets nothing if it is turned down, and codes that nobody was given are not found", async () => {
    const { signIns } = replica.clients;
    const started = await signIns.startLogin({ clientName: "x" });
    await signIns.decideLogin({ userCode: started.userCode, confirm: false });
    expect(await signIns.finishLogin({ deviceCode: started.deviceCode })).toMatchObject({
      state: LoginState.DENIED,
      secret: "",
    });
    expect(await refusal(signIns.getLogin({ userCode: "BBBB-BBBB" }))).toBe("NotFound");
    expect(await refusal(signIns.decideLogin({ userCode: "BBBB-BBBB", confirm: true }))).toBe("NotFound");
    expect(await refusal(signIns.finishLogin({ deviceCode: "x" }))).toBe("Unauthenticated");
  });

  test("from one address, no more than thirty wait at once", async () => {
    const { signIns } = replica.clients;
    const codes: string[] = [];
    for (let count = 0; count <= 30; count++) {
      codes.push(await refusal(signIns.startLogin({ clientName: "x" })));
    }
    expect(codes).toContain("ResourceExhausted");
    await sql`update sign_in_code set expires_at = now()`.execute(database.db);
    expect(await refusal(signIns.startLogin({ clientName: "x" }))).toBe("");
  });
});
