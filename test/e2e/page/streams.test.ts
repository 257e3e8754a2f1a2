/** The stream that keeps the page live: its transport, and its end. */
import type { Page } from "playwright-core";
import { describe, expect, test } from "vitest";
import { browserPath, patient, untilLive, useBrowser } from "../../support/browser.ts";
import { hasOpenssl, makeCertificate } from "../../support/certificate.ts";
import { useDatabase } from "../../support/database.ts";
import { enrolDevice } from "../../support/device.ts";
import { startTestReplica } from "../../support/server.ts";

describe.skipIf(!browserPath)("the stream of events", () => {
  const database = useDatabase();
  const browser = useBrowser();

  const protocols = async (page: Page) =>
    new Set(
      (await page.evaluate(
        "performance.getEntriesByType('resource').map((entry) => entry.nextHopProtocol).filter(Boolean)",
      )) as string[],
    );

  /** Makes the page visible or hidden, in the view of the page's own script. */
  const setHidden = (page: Page, isHidden: boolean) =>
    page.evaluate(`Object.defineProperty(document, "hidden", { value: ${isHidden}, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"))`);

  test("without TLS it goes over HTTP/1.1, and what happens is seen", async () => {
    const replica = await startTestReplica(database.url, patient);
    const page = await browser.signIn(replica, "#/fleet");
    await enrolDevice(replica.clients, "mac-7");
    await page.getByRole("link", { name: "mac-7" }).waitFor();
    expect(await protocols(page)).toEqual(new Set(["http/1.1"]));
  });

  test.skipIf(!hasOpenssl)("with TLS it goes over HTTP/2, and what happens is seen", async () => {
    const { certFile, keyFile } = makeCertificate();
    const tls = { PINION_TLS_CERT_FILE: certFile, PINION_TLS_KEY_FILE: keyFile };
    const replica = await startTestReplica(database.url, { ...patient, ...tls });
    const beside = await startTestReplica(database.url, patient);
    const page = await browser.signIn(replica, "#/fleet");
    await enrolDevice(beside.clients, "mac-7");
    await page.getByRole("link", { name: "mac-7" }).waitFor();
    expect(await protocols(page)).toEqual(new Set(["h2"]));
  });

  test("a tab that nobody looks at lets it go, and takes it up again where it was", async () => {
    const replica = await startTestReplica(database.url, patient);
    const page = await browser.open(replica.url, "#/events");
    await page.clock.install();
    await page.getByLabel("Token").fill(replica.token);
    await page.keyboard.press("Enter");
    await page.clock.runFor(1_000);
    await untilLive(page);
    await setHidden(page, true);
    await page.clock.fastForward(31_000);
    // Soon: later the stream would have ended by its own silence.
    await page.getByText("resting").waitFor({ timeout: 4_000 });
    await enrolDevice(replica.clients, "mac-7");
    await page.clock.runFor(1_000);
    expect(await page.getByText("device.enrolled").count()).toBe(0);
    await setHidden(page, false);
    await untilLive(page);
    await page.clock.runFor(1_000);
    await page.getByText("device.enrolled").waitFor();
  });
});
