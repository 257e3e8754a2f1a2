/** The page behind a reverse proxy that serves the page below a path. */
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { browserPath, enterToken, patient, untilLive, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startTestReplica } from "../../support/server.ts";

const basePath = "/tools/pinion";

/**
 * Passes requests below the path on to the replica, and refuses other requests. Resolves to the
 * path's URL.
 */
async function startProxy(target: string): Promise<string> {
  const refused: string[] = [];
  const server = createServer((incoming, outgoing) => {
    if (!incoming.url?.startsWith(`${basePath}/`)) {
      refused.push(incoming.url ?? "");
      outgoing.writeHead(404).end();
      return;
    }
    const { method, headers } = incoming;
    const onwards = request(
      `${target}${incoming.url.slice(basePath.length)}`,
      { method, headers },
      (answer) => {
        outgoing.writeHead(answer.statusCode!, answer.headers);
        answer.pipe(outgoing);
      },
    );
    onwards.on("error", () => outgoing.destroy());
    outgoing.on("close", () => onwards.destroy());
    incoming.pipe(onwards);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
    expect(refused, "requests beside the path").toEqual([]);
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}${basePath}`;
}

describe.skipIf(!browserPath)("below a path", () => {
  const database = useDatabase();
  const browser = useBrowser();

  test("a person signs in, sees a run live, opens it, and comes back to it by its address", async () => {
    const replica = await startTestReplica(database.url, patient);
    const url = await startProxy(replica.url);
    const identity = await enrolDevice(replica.clients, "mac-7");
    const { watcher } = await replica.clients.watchers.createWatcher({
      spec: { name: "Digest", prompt: "sum it up", deviceId: identity.deviceId },
    });
    const page = await browser.open(url, "#/runs");
    await enterToken(page, replica.token);
    await untilLive(page);
    const device = await connect(replica.url, identity);
    const { run } = await replica.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await device.next("assignment");
    device.accept(assignment);
    await device.complete(assignment, "found below a path");
    await page.locator(`[data-key="${run!.id}"]`).getByText("completed").waitFor();
    await page.locator(`[data-key="${run!.id}"]`).getByRole("link").first().click();
    await page.getByText("found below a path").first().waitFor();
    expect(page.url().startsWith(`${url}/#/runs/`)).toBe(true);
    await page.reload();
    await page.getByText("found below a path").first().waitFor();
  });

  test("the documentation is below the path too: its links, its search and its files", async () => {
    const replica = await startTestReplica(database.url);
    const url = await startProxy(replica.url);
    const page = await browser.open(url);
    await page.getByRole("link", { name: "Documentation" }).click();
    await page.getByRole("heading", { name: "Documentation", level: 1 }).waitFor();
    // The key is of the page's script.
    await page.waitForLoadState();
    await page.keyboard.press("/");
    await page.keyboard.type("turns conversations");
    await page.locator("#found").getByRole("link", { name: "Turns and conversations" }).first().click();
    await page.waitForURL(`${url}/docs/concepts#turns-and-conversations`);
    await page.getByRole("navigation").locator('a[href$="docs/hooks"], a[href$="hooks"]').first().click();
    await page.waitForURL(`${url}/docs/hooks`);
    expect(await page.evaluate("getComputedStyle(document.body).margin")).not.toBe("8px");
  });
});
