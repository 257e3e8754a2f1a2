import { describe, expect, test } from "vitest";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { browserPath, enterToken, patient, untilLive, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { inNewOrg, useReplica } from "../../support/server.ts";

/** The browser reports every unsuccessful answer. */
const refused = /status of 40[13]/;

describe.skipIf(!browserPath)("signing in", () => {
  const replicaOfFile = useReplica(useDatabase({ per: "file" }), patient);
  const browser = useBrowser();

  test("a wrong token is refused with what to do, and a good one lets in", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const page = await browser.open(replica.url, "#/fleet", { expected: refused });
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("Paste a token first.").waitFor();
    await enterToken(page, "pin_pat_wrong_00000000");
    await page.getByText(/not known here, has expired or was revoked/).waitFor();
    await enterToken(page, replica.token);
    await page.getByText("No device yet").waitFor();
    expect(await page.getByText(/not known here/).count()).toBe(0);
  });

  test("a device's token cannot read, and the page says which scope is missing", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const { token } = await enrolDevice(replica.clients);
    const page = await browser.open(replica.url, "", { expected: refused });
    await enterToken(page, token);
    await page.getByText(/needs one with the scope “read”/).waitFor();
  });

  test("a sign-in holds over a reload and in other tabs, no script can read it, and signing out ends it in all of them", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const page = await browser.open(replica.url, "#/events?q=watcher", { expected: refused });
    await enterToken(page, replica.token);
    await untilLive(page);
    await page.reload();
    await untilLive(page);
    const other = await page.context().newPage();
    await other.goto(`${replica.url}/#/runs?state=failed`);
    await untilLive(other);
    expect(
      await page.evaluate("JSON.stringify([{ ...sessionStorage }, { ...localStorage }, document.cookie])"),
    ).toBe('[{},{},""]');
    const cookies = await page.context().cookies();
    expect(cookies).toMatchObject([{ httpOnly: true, sameSite: "Strict", path: "/" }]);
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Token").waitFor();
    await other.getByText(/You were signed out/).waitFor();
    expect(await page.context().cookies()).toEqual([]);
    // The place is remembered, not the credential.
    expect(page.url()).toContain("#/events?q=watcher");
  });

  test("a link signs in with one click, leads to the place that it names, and is no good a second time", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const { path } = await replica.clients.signIns.createSignInLink({ place: "/events?q=sign" });
    const page = await browser.open(replica.url, path.slice(1), { expected: refused });
    await untilLive(page);
    await page.waitForURL("**/#/events?q=sign");
    await page.getByText("sign_in.started").first().waitFor();
    const second = await browser.open(replica.url, path.slice(1), { expected: refused });
    await second.getByText(/This link was used already/).waitFor();
    await enterToken(second, replica.token);
    await untilLive(second);
    expect(second.url()).toContain("#/events?q=sign");
  });

  test("a place that somebody was sent is shown after signing in", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const page = await browser.open(replica.url, "#/watchers?q=daily", { expected: refused });
    await enterToken(page, replica.token);
    await untilLive(page);
    expect(page.url()).toContain("#/watchers?q=daily");
  });

  test("browsers that are signed in are listed, and one is signed out from another at once", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const lost = await browser.signIn(replica, "#/events", { expected: refused });
    const page = await browser.signIn(replica, "#/you", { expected: refused });
    const rows = page.getByRole("table").getByRole("row");
    await expect.poll(() => rows.count()).toBe(3);
    await page.getByText("this one").waitFor();
    await page.getByRole("table").getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("button", { name: "Sign it out" }).click();
    await lost.getByText(/You were signed out/).waitFor();
    await expect.poll(() => rows.count()).toBe(2);
  });

  test("a command that logs in is confirmed on the page, after signing in there", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const { signIns } = replica.clients;
    const { path, deviceCode } = await signIns.startLogin({ clientName: "pinion on lab-box" });
    const page = await browser.open(replica.url, path.slice(1), { expected: refused });
    await enterToken(page, replica.token);
    await page.getByText("pinion on lab-box").waitFor();
    await page.getByRole("button", { name: "Confirm" }).click();
    await page.getByText("It is logged in").waitFor();
    expect((await signIns.finishLogin({ deviceCode })).secret).toMatch(/^pin_pat_/);
  });

  test("a token that is revoked while the page is open signs out, and says why", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const { secret, token } = await replica.clients.tokens.createToken({
      kind: TokenKind.PAT,
      label: "page",
      scopes: ["read"],
    });
    const page = await browser.signIn({ url: replica.url, token: secret }, "", { expected: refused });
    await replica.clients.tokens.revokeToken({ tokenId: token!.id });
    await page.getByText(/You were signed out: the sign-in has expired or was ended/).waitFor();
  });

  test("a token that may only read sees everything, and is told what it may not do", async () => {
    const replica = await inNewOrg(replicaOfFile());
    const identity = await enrolDevice(replica.clients, "mac-7");
    await connect(replica.url, identity);
    const { secret } = await replica.clients.tokens.createToken({
      kind: TokenKind.PAT,
      label: "page",
      scopes: ["read"],
    });
    const page = await browser.signIn({ url: replica.url, token: secret }, "#/fleet", { expected: refused });
    await page.getByRole("button", { name: "Disconnect mac-7" }).click();
    await page.getByText(/You may not do that/).waitFor();
  });
});
