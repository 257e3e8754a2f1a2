import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { browserPath, patient, useBrowser } from "../../support/browser.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, enrolDevice } from "../../support/device.ts";
import { startTestReplica } from "../../support/server.ts";

const picturesDir = process.env.PINION_PICTURES;

describe.skipIf(!browserPath)("names with marks that turn the direction of writing", () => {
  const database = useDatabase();
  const browser = useBrowser();

  test("turn nothing beside them, in any view, and are no wider than the screen", async () => {
    const replica = await startTestReplica(database.url, patient);
    const { clients } = replica;
    const label = "\u202egnp.exe \u05d0\u05d1\u05d2 device";
    const identity = await enrolDevice(clients, label);
    const stream = await connect(replica.url, identity);
    const name = `\u2067\u202e${"watcher\u0336".repeat(6)} \u{1f469}\u200d\u{1f4bb}`;
    const spec = { name, prompt: "\u202eprompt", deviceId: identity.deviceId };
    const { watcher } = await clients.watchers.createWatcher({ spec });
    const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
    const assignment = await stream.next("assignment");
    stream.accept(assignment);
    await stream.complete(assignment, "\u202eoutput", 2, "\u202ereason");
    await clients.tokens.createToken({ label: "\u202etoken", kind: 1, scopes: ["read"] });

    const page = await browser.signIn(replica, "#/watchers", { width: 1280 });
    const places = {
      watchers: "#/watchers",
      watcher: `#/watchers/${watcher!.slug}`,
      runs: "#/runs",
      run: `#/runs/${run!.id}`,
      fleet: "#/fleet",
      device: `#/fleet/${identity.deviceId}`,
      events: "#/events",
      org: "#/org",
      home: "#/home",
    };
    const open: string[] = [];
    for (const [view, place] of Object.entries(places)) {
      await page.goto(`${replica.url}/${place}`);
      await page.getByText("\u202e").first().waitFor({ state: "attached" });
      // The elements that hold such a text, and let it out; the system draws options.
      const found = (await page.evaluate(`
        [...document.querySelectorAll("main *:not(option), dialog *:not(option)")]
          .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && /[\\u202e\\u2067]/.test(node.data)))
          .filter((element) => !/isolate|plaintext/.test(getComputedStyle(element).unicodeBidi))
          .map((element) => element.outerHTML.slice(0, 200))
      `)) as string[];
      open.push(...found.map((html) => `${view}: ${html}`));
      const width = Number(await page.evaluate("document.documentElement.scrollWidth"));
      expect([view, width]).toEqual([view, 1280]);
      if (picturesDir) {
        mkdirSync(picturesDir, { recursive: true });
        await page.screenshot({ path: join(picturesDir, `odd-${view}.png`) });
      }
    }
    expect(open).toEqual([]);
  });
});
