/** A platform that starts anywhere: a webhook, which is spoken to only when there is a message. */
export const webhookPlatform = {
  kind: "webhook",
  config: {} as Record<string, string>,
  secrets: {
    url: { kind: { case: "value", value: "https://chat.example.com/pinion" } },
    signing_secret: {
      kind: { case: "value", value: `whsec_${Buffer.alloc(32, 7).toString("base64")}` },
    },
  } as const,
};
