// Makes keys and signatures for the tests with Node's crypto and with the library jose. Reads one JSON request per line from
// stdin and writes one JSON answer per line to stdout, until stdin closes. Binary values are in Base64.
//   {"make": "rsa-2048"}                                          a key pair in every text format
//   {"sign": "rsa-pss-sha256", "key": "PEM", "content": "BASE64"}  {"signature": "BASE64"}
//   {"sign": "hmac-sha256", "key": "BASE64", "content": "BASE64"}  the same for a secret
//   {"jwt": {"alg": "ES256"}, "claims": {…}, "key": "PEM"}         {"token": "…"}; the key is {"secret": "BASE64"} for HS256
import { constants, createHash, createHmac, createPrivateKey, generateKeyPairSync, sign } from "node:crypto";
import { createInterface } from "node:readline";
import { SignJWT } from "jose";

const kinds = {
  "rsa-1024": ["rsa", { modulusLength: 1024 }], "rsa-2048": ["rsa", { modulusLength: 2048 }],
  "p-256": ["ec", { namedCurve: "P-256" }], "p-384": ["ec", { namedCurve: "P-384" }], "secp256k1": ["ec", { namedCurve: "secp256k1" }],
  ed25519: ["ed25519", {}], x25519: ["x25519", {}],
};
const pss = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
const signers = {
  ed25519: (key, content) => sign(null, content, key),
  "ecdsa-p256-sha256-der": (key, content) => sign("sha256", content, key),
  "ecdsa-p256-sha256-fixed": (key, content) => sign("sha256", content, { key, dsaEncoding: "ieee-p1363" }),
  "rsa-pkcs1-sha1": (key, content) => sign("sha1", content, key),
  "rsa-pkcs1-sha256": (key, content) => sign("sha256", content, key),
  "rsa-pkcs1-sha512": (key, content) => sign("sha512", content, key),
  "rsa-pss-sha256": (key, content) => sign("sha256", content, { key, ...pss }),
  "rsa-pss-sha512": (key, content) => sign("sha512", content, { key, ...pss }),
};

function make(kind) {
  const [type, options] = kinds[kind];
  const { privateKey, publicKey } = generateKeyPairSync(type, options);
  const spki = publicKey.export({ type: "spki", format: "der" });
  const jwk = publicKey.export({ format: "jwk" });
  const point = () => Buffer.concat([Buffer.from([4]), Buffer.from(jwk.x, "base64url"), Buffer.from(jwk.y, "base64url")]);
  const raw = { rsa: () => publicKey.export({ type: "pkcs1", format: "der" }), ec: point }[type] ?? (() => Buffer.from(jwk.x, "base64url"));
  return {
    pem: publicKey.export({ type: "spki", format: "pem" }),
    pkcs1: type === "rsa" ? publicKey.export({ type: "pkcs1", format: "pem" }) : "",
    spki: spki.toString("base64"), raw: raw().toString("base64"), jwk: JSON.stringify(jwk),
    private: privateKey.export({ type: "pkcs8", format: "pem" }), private_jwk: JSON.stringify(privateKey.export({ format: "jwk" })),
  };
}

async function answer(request) {
  if (request.make) return make(request.make);
  if (request.jwt) {
    const key = request.key.secret ? Buffer.from(request.key.secret, "base64") : createPrivateKey(request.key);
    return { token: await new SignJWT(request.claims).setProtectedHeader(request.jwt).sign(key) };
  }
  const content = Buffer.from(request.content, "base64");
  const hash = request.sign.match(/^hmac-(.*)/)?.[1];
  if (hash) return { signature: createHmac(hash, Buffer.from(request.key, "base64")).update(content).digest("base64") };
  const plain = request.sign.match(/^hash-(.*)/)?.[1];
  if (plain) return { signature: createHash(plain).update(content).digest("base64") };
  return { signature: signers[request.sign](createPrivateKey(request.key), content).toString("base64") };
}

for await (const line of createInterface({ input: process.stdin })) {
  const reply = await answer(JSON.parse(line)).catch((error) => ({ error: String(error) }));
  process.stdout.write(JSON.stringify(reply) + "\n");
}
