import { describe, expect, test } from "vitest";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { browserPath, enterToken, patient, untilLive, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startTestReplica } from "../../support/server.ts";

/** The browser reports every answer that is no success. */
const refused = /status of 40[13]/;

describe.skipIf(!browserPath)("signing in", () => {
  const database = useDatabase();
  const browser = useBrowser();

  test("a wrong token is refused with what to do, and a good one lets in", async () => {
    const replica = await startTestReplica(database.url, patient);
    const page = await browser.open(replica.url, "", { expected: refused });
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("Paste a token first.").waitFor();
    await enterToken(page, "pin_pat_wrong_00000000");
    await page.getByText(/not known here, has expired or was revoked/).waitFor();
    await enterToken(page, replica.token);
    await page.getByText("No device yet").waitFor();
    expect(await page.getByText(/not known here/).count()).toBe(0);
  });

  test("a device's token cannot read, and the page says which scope is missing", async () => {
    const replica = await startTestReplica(database.url, patient);
    const { token } = await enrolDevice(replica.clients);
    const page = await browser.open(replica.url, "", { expected: refused });
    await enterToken(page, token);
    await page.getByText(/needs one with the scope “read”/).waitFor();
  });

  test("the token stays with the tab over a reload, is unknown to another tab, and is gone after signing out", async () => {
    const replica = await startTestReplica(database.url, patient);
    const page = await browser.signIn(replica, "#/events");
    await page.reload();
    await untilLive(page);
    const other = await page.context().newPage();
    await other.goto(`${replica.url}/#/events`);
    await other.getByLabel("Token").waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByLabel("Token").waitFor();
    expect(
      await page.evaluate("JSON.stringify([{ ...sessionStorage }, { ...localStorage }, document.cookie])"),
    ).toBe('[{},{},""]');
    // The place is remembered, not the token.
    expect(page.url()).toContain("#/events");
  });

  test("a token that is revoked while the page is open signs out, and says why", async () => {
    const replica = await startTestReplica(database.url, patient);
    const { secret, token } = await replica.clients.tokens.createToken({
      kind: TokenKind.PAT,
      label: "page",
      scopes: ["read"],
    });
    const page = await browser.signIn({ url: replica.url, token: secret }, "", { expected: refused });
    await replica.clients.tokens.revokeToken({ tokenId: token!.id });
    await page.getByText(/You were signed out: the token has expired or was revoked/).waitFor();
  });

  test("a token that may only read sees everything, and is told what it may not do", async () => {
    const replica = await startTestReplica(database.url, patient);
    const identity = await enrolDevice(replica.clients, "mac-7");
    await connect(replica.url, identity);
    const { secret } = await replica.clients.tokens.createToken({
      kind: TokenKind.PAT,
      label: "page",
      scopes: ["read"],
    });
    const page = await browser.signIn({ url: replica.url, token: secret }, "", { expected: refused });
    await page.getByRole("button", { name: "Disconnect mac-7" }).click();
    await page.getByText(/This token may not do that/).waitFor();
  });
});
