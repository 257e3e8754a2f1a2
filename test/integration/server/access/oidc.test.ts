/**
 * Signing in with an OpenID Connect provider: a real provider on localhost, visited like by a
 * browser.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
// @ts-expect-error The package has no types.
import Provider from "oidc-provider";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";

const database = useDatabase({ per: "file" });

/** The people who can sign in at the provider, by login name. */
const people: Record<string, { email: string; email_verified: boolean; name: string; groups: string[] }> = {
  ada: { email: "ada@example.org", email_verified: true, name: "Ada", groups: ["ops"] },
  bob: { email: "bob@example.org", email_verified: true, name: "Bob", groups: ["staff", "cooks"] },
  eve: { email: "ada@example.org", email_verified: false, name: "Eve", groups: ["staff"] },
  guest: { email: "guest@example.org", email_verified: true, name: "Guest", groups: ["guests"] },
};

let server: Server;
let issuer: string;
let mapped: TestReplica;
let byMembership: TestReplica;
const redirectUris: string[] = [];

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, "127.0.0.1");
  await new Promise((done) => probe.once("listening", done));
  const { port } = probe.address() as AddressInfo;
  await new Promise((done) => probe.close(done));
  return port;
}

beforeAll(async () => {
  server = createServer();
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const open = async (roles: string) => {
    const port = await freePort();
    const publicUrl = `http://127.0.0.1:${port}`;
    redirectUris.push(`${publicUrl}/auth/oidc/callback`);
    return openTestReplica(database.url, {
      PINION_PORT: String(port),
      PINION_PUBLIC_URL: publicUrl,
      PINION_OIDC_ISSUER: issuer,
      PINION_OIDC_CLIENT_ID: "pinion",
      PINION_OIDC_CLIENT_SECRET: "a secret of the two",
      PINION_OIDC_SCOPES: "openid email profile groups",
      PINION_OIDC_NAME: "Example",
      PINION_OIDC_ROLES: roles,
    });
  };
  mapped = await open("ops=admin,staff=member");
  byMembership = await open("");
  const provider = new Provider(issuer, {
    clients: [{ client_id: "pinion", client_secret: "a secret of the two", redirect_uris: redirectUris }],
    claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name"], groups: ["groups"] },
    scopes: ["openid", "email", "profile", "groups"],
    findAccount: (_context: unknown, id: string) => ({
      accountId: id,
      claims: () => ({ sub: id, ...people[id] }),
    }),
    features: { devInteractions: { enabled: true } },
    cookies: { keys: ["of a test"] },
  } as never);
  server.on("request", provider.callback());
});
afterAll(async () => {
  await mapped.stop();
  await byMembership.stop();
  server.closeAllConnections();
  server.close();
});

/** A browser's cookies by name, of all hosts: they are all 127.0.0.1. */
class Visitor {
  readonly cookies = new Map<string, string>();

  async fetch(url: string, init: RequestInit = {}): Promise<Response> {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(url, { redirect: "manual", ...init, headers: { ...init.headers, cookie } });
    for (const line of response.headers.getSetCookie()) {
      const [pair = ""] = line.split(";");
      const [name = "", value = ""] = [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)];
      if (value === "") this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    return response;
  }

  /** Follows redirections to the first page. */
  async follow(url: string, until: (url: string) => boolean): Promise<{ url: string; response: Response }> {
    let at = url;
    for (let hops = 0; hops < 20; hops++) {
      if (until(at)) return { url: at, response: new Response() };
      const response = await this.fetch(at);
      const to = response.headers.get("location");
      if (!to) return { url: at, response };
      at = new URL(to, at).href;
    }
    throw new Error("too many redirections");
  }

  /** Signs in at the provider as a person; returns the final URL of the browser. */
  async signIn(replica: TestReplica, login: string, place = "/runs?state=failed"): Promise<string> {
    const isBack = (url: string) => url.startsWith(`${replica.url}/#`);
    let at = await this.follow(`${replica.url}/auth/oidc/start?to=${encodeURIComponent(place)}`, isBack);
    for (let forms = 0; forms < 4 && !isBack(at.url); forms++) {
      const html = await at.response.text();
      const action = /action="([^"]+)"/.exec(html)?.[1];
      if (!action) throw new Error(`no form: ${html.slice(0, 300)}`);
      const prompt = html.includes('value="consent"') ? "consent" : "login";
      const posted = await this.fetch(new URL(action, at.url).href, {
        method: "POST",
        headers: { "content-type": "application/x-www-form-urlencoded" },
        body: new URLSearchParams({ prompt, login, password: "x" }).toString(),
      });
      at = await this.follow(new URL(posted.headers.get("location")!, at.url).href, isBack);
    }
    return at.url.slice(replica.url.length);
  }

  async caller(replica: TestReplica): Promise<Record<string, unknown>> {
    const response = await this.fetch(`${replica.url}/pinion.v1.SignInService/GetCaller`, {
      method: "POST",
      headers: { "content-type": "application/json", "sec-fetch-site": "same-origin" },
      body: "{}",
    });
    return (await response.json()) as Record<string, unknown>;
  }
}

describe("with roles by a claim", () => {
  test("a person comes in, in the strongest role of their groups, at the place that they wanted", async () => {
    const ada = new Visitor();
    expect(await ada.signIn(mapped, "ada")).toBe("/#/runs?state=failed");
    expect(await ada.caller(mapped)).toMatchObject({
      userName: "Ada",
      email: "ada@example.org",
      role: "MEMBER_ROLE_ADMIN",
      scopes: expect.arrayContaining(["admin"]),
    });
    const bob = new Visitor();
    await bob.signIn(mapped, "bob");
    const caller = await bob.caller(mapped);
    expect(caller).toMatchObject({ role: "MEMBER_ROLE_MEMBER" });
    expect(caller.scopes).not.toContain("admin");
  });

  test("a role that was taken away there is taken away here at the next sign-in, from open sign-ins too", async () => {
    const [before, after] = [new Visitor(), new Visitor()];
    people.ada!.groups = ["ops"];
    await before.signIn(mapped, "ada");
    people.ada!.groups = ["staff"];
    await after.signIn(mapped, "ada");
    for (const visitor of [before, after]) {
      const caller = await visitor.caller(mapped);
      expect(caller).toMatchObject({ role: "MEMBER_ROLE_MEMBER" });
      expect(caller.scopes).not.toContain("admin");
    }
    people.ada!.groups = ["ops"];
  });

  test("who is in no group that has a role is turned down, and so is a visit that another browser began", async () => {
    const guest = new Visitor();
    expect(await guest.signIn(mapped, "guest")).toMatch(/^\/#\/sign-in\?refused=role/);
    expect(await guest.caller(mapped)).toMatchObject({ code: "unauthenticated" });

    const began = new Visitor();
    const { url } = await began.follow(`${mapped.url}/auth/oidc/start`, (at) =>
      at.startsWith(`${issuer}/auth`),
    );
    const state = new URL(url).searchParams.get("state")!;
    const other = await new Visitor().fetch(`${mapped.url}/auth/oidc/callback?state=${state}&code=x`);
    expect(other.headers.get("location")).toContain("refused=expired");
    // The person's own browser brings a code that the provider never issued.
    const own = await began.fetch(`${mapped.url}/auth/oidc/callback?state=${state}&code=x&iss=${issuer}`);
    expect(own.headers.get("location")).toContain("refused=provider");
    const again = await began.fetch(`${mapped.url}/auth/oidc/callback?state=${state}&code=x`);
    expect(again.headers.get("location")).toContain("refused=expired");
  });

  test("an email address that the provider does not vouch for is nobody's: a stranger does not become its owner", async () => {
    const eve = new Visitor();
    await eve.signIn(mapped, "eve");
    const caller = await eve.caller(mapped);
    const ada = new Visitor();
    await ada.signIn(mapped, "ada");
    expect(caller.userId).not.toBe((await ada.caller(mapped)).userId);
    expect(caller).toMatchObject({ userName: "Eve", role: "MEMBER_ROLE_MEMBER" });
  });
});

describe("without roles", () => {
  test("members alone sign in, as what they are", async () => {
    await mapped.clients.orgs.addMember({ email: "guest@example.org", name: "Guest", role: 3 });
    const guest = new Visitor();
    expect(await guest.signIn(byMembership, "guest")).toBe("/#/runs?state=failed");
    expect(await guest.caller(byMembership)).toMatchObject({ role: "MEMBER_ROLE_MEMBER" });
    people.zoe = { email: "zoe@example.org", email_verified: true, name: "Zoe", groups: ["ops"] };
    expect(await new Visitor().signIn(byMembership, "zoe")).toMatch(/refused=member/);
  });
});
