// Signs deliveries for the tests with the providers' own SDKs. Reads one JSON request per line from stdin and writes one JSON
// answer per line to stdout, until stdin closes.
//   request  {"scheme": "stripe", "secret": "whsec_…", "id": "msg_1", "timestamp": 1614265330, "body": "BASE64"}
//   answer   {"by": "stripe 23.1.0", "headers": [["stripe-signature", "t=…,v1=…"]]}   or   {"error": "…"}
// The SDKs take the body as text (standardwebhooks decodes even a Buffer as UTF-8 first), so no SDK can sign a body that is not
// UTF-8. Octokit's and Shopify's SDKs also reject an empty body. The openssl command signs these two kinds of bodies for every
// provider except Twilio, and "by" in the answer is then "openssl".
// Slack's Bolt and Shopify's SDK can verify signatures but cannot create them. For these providers, openssl creates every
// signature, and the answer is an error if the SDK rejects the signature.
// A request for Twilio has an additional "url", the URL that Twilio calls, and "id" is the idempotency token. If the URL
// contains `bodySHA256`, Twilio's SDK signs only the URL. Otherwise the SDK signs the URL and the parameters of the form. The
// answer is an error if the SDK's own validation rejects the signature. The scheme twilio-sha256 signs with a shared key.
import { execFileSync } from "node:child_process";
import { createInterface } from "node:readline";
import { parse } from "node:querystring";
import { readFileSync } from "node:fs";
import { sign as octokit } from "@octokit/webhooks-methods";
import { Webhook as StandardWebhook } from "standardwebhooks";
import { Webhook as SvixWebhook } from "svix";
import Stripe from "stripe";

const packages = {
  stripe: "stripe", github: "@octokit/webhooks-methods", slack: "@slack/bolt", "standard-webhooks": "standardwebhooks", svix: "svix",
  shopify: "@shopify/shopify-api", "shopify-events": "@shopify/shopify-api", twilio: "twilio", "twilio-sha256": "twilio",
};
const pinned = JSON.parse(readFileSync(new URL("package.json", import.meta.url))).dependencies;

const sdk = {
  stripe: (r, text) => Stripe.webhooks.generateTestHeaderString({ payload: text, secret: r.secret, timestamp: r.timestamp }),
  github: (r, text) => octokit(r.secret, text),
  slack: async (r, text) => {
    const { verifySlackRequest } = (await import("@slack/bolt")).default; // imported only here, because Bolt loads slowly
    const signature = openssl.slack(r, Buffer.from(text));
    const headers = { "x-slack-signature": signature, "x-slack-request-timestamp": r.timestamp };
    verifySlackRequest({ signingSecret: r.secret, body: text, headers, nowMilliseconds: r.timestamp * 1000 });
    return signature;
  },
  "standard-webhooks": (r, text) => new StandardWebhook(r.secret).sign(r.id, new Date(r.timestamp * 1000), text),
  svix: (r, text) => new SvixWebhook(r.secret).sign(r.id, new Date(r.timestamp * 1000), text),
  shopify: (r, text) => shopify(r, text),
  "shopify-events": (r, text) => shopify(r, text),
  twilio: (r, text) => twilio(r, text, "HMAC_SHA1"),
  "twilio-sha256": (r, text) => twilio(r, text, "HMAC_SHA256"),
};

const openssl = {
  stripe: (r, body) => `t=${r.timestamp},v1=${hmac(Buffer.from(r.secret), `${r.timestamp}.`, body).toString("hex")}`,
  github: (r, body) => `sha256=${hmac(Buffer.from(r.secret), "", body).toString("hex")}`,
  slack: (r, body) => `v0=${hmac(Buffer.from(r.secret), `v0:${r.timestamp}:`, body).toString("hex")}`,
  "standard-webhooks": (r, body) => `v1,${hmac(whsec(r.secret), `${r.id}.${r.timestamp}.`, body).toString("base64")}`,
  svix: (r, body) => openssl["standard-webhooks"](r, body),
  shopify: (r, body) => hmac(Buffer.from(r.secret), "", body).toString("base64"),
  "shopify-events": (r, body) => openssl.shopify(r, body),
};

const headers = {
  stripe: (r, signature) => [["stripe-signature", signature]],
  github: (r, signature) => [["x-hub-signature-256", signature]],
  slack: (r, signature) => [["x-slack-request-timestamp", String(r.timestamp)], ["x-slack-signature", signature]],
  "standard-webhooks": (r, signature) => message("webhook", r, signature),
  svix: (r, signature) => message("svix", r, signature),
  shopify: (r, signature) => [
    ["X-Shopify-Topic", "orders/create"], ["X-Shopify-Hmac-Sha256", signature], ["X-Shopify-Shop-Domain", SHOP],
    ["X-Shopify-API-Version", "2026-10"], ["X-Shopify-Webhook-Id", r.id], ["X-Shopify-Event-Id", "one-action"],
    ["X-Shopify-Triggered-At", "2023-11-14T22:13:20.123456789Z"],
  ],
  "shopify-events": (r, signature) => [
    ["shopify-topic", "Product"], ["shopify-action", "update"], ["shopify-hmac-sha256", signature], ["shopify-shop-domain", SHOP],
    ["shopify-api-version", "unstable"], ["shopify-webhook-id", r.id], ["shopify-event-id", "one-action"],
    ["shopify-resource-id", "gid://shopify/Product/7"], ["shopify-handle", "all"],
    ["shopify-triggered-at", "2023-11-14T22:13:20.123456789Z"],
  ],
  twilio: (r, signature) => [["X-Twilio-Signature", signature], ...(r.id ? [["I-Twilio-Idempotency-Token", r.id]] : [])],
  "twilio-sha256": (r, signature) => [
    ...headers.twilio(r, signature), ["X-Twilio-Webhooks-Signature-Settings", "key=SK0001,algorithm=HMAC_SHA256"],
  ],
};

const SHOP = "a-shop.myshopify.com";

async function shopify(r, text) {
  await import("@shopify/shopify-api/adapters/node");
  const { shopifyApi, ApiVersion, LogSeverity } = await import("@shopify/shopify-api");
  const api = shopifyApi({
    apiKey: "key", apiSecretKey: r.secret, hostName: "hooks.example.com", isEmbeddedApp: false,
    apiVersion: Object.values(ApiVersion)[0], logger: { level: LogSeverity.Error },
  });
  const signature = openssl.shopify(r, Buffer.from(text));
  const rawRequest = { headers: Object.fromEntries(headers[r.scheme](r, signature)), method: "POST", url: "/" };
  const found = await api.webhooks.validate({ rawBody: text, rawRequest, rawResponse: {} });
  if (!found.valid || found.webhookId !== r.id) throw new Error(`not valid for the SDK: ${JSON.stringify(found)}`);
  return signature;
}

async function twilio(r, text, algorithm) {
  const sdk = (await import("twilio/lib/webhooks/webhooks.js")).default;
  const hashed = r.url.includes("bodySHA256");
  const params = hashed ? {} : { ...parse(text) };
  const signature = sdk.getExpectedTwilioSignature(r.secret, r.url, params, algorithm);
  const valid = hashed
    ? sdk.validateRequestWithBody(r.secret, signature, r.url, text, algorithm)
    : sdk.validateRequest(r.secret, signature, r.url, params, algorithm);
  if (!valid) throw new Error("not valid for the SDK itself");
  return signature;
}

const message = (prefix, r, signature) => [
  [`${prefix}-id`, r.id], [`${prefix}-timestamp`, String(r.timestamp)], [`${prefix}-signature`, signature],
];

const whsec = (secret) => Buffer.from(secret.replace(/^whsec_/, ""), "base64");

function hmac(key, before, body) {
  const input = Buffer.concat([Buffer.from(before), body]);
  return execFileSync("openssl", ["dgst", "-sha256", "-mac", "HMAC", "-macopt", `hexkey:${key.toString("hex")}`, "-binary"], { input });
}

async function answer(request) {
  if (!Object.hasOwn(sdk, request.scheme)) throw new Error(`no such scheme: ${request.scheme}`);
  const body = Buffer.from(request.body, "base64");
  const text = body.toString("utf8");
  const is_text = (body.length > 0 || request.scheme.startsWith("twilio")) && Buffer.from(text, "utf8").equals(body);
  const signature = is_text ? await sdk[request.scheme](request, text) : openssl[request.scheme](request, body);
  const name = packages[request.scheme];
  return { by: is_text ? `${name} ${pinned[name]}` : "openssl", headers: headers[request.scheme](request, signature) };
}

for await (const line of createInterface({ input: process.stdin })) {
  const reply = await answer(JSON.parse(line)).catch((error) => ({ error: String(error) }));
  process.stdout.write(JSON.stringify(reply) + "\n");
}
