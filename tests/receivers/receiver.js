// Receivers as the documents of customer-events and wechat-messages show them to people who write JavaScript.
//
//   receiver.js express-customer   customer-events: the signature over JSON.stringify(req.body)
//   receiver.js express-wechat     wechat-messages: the signature over `${timestamp}:${JSON.stringify(req.body)}`
//   receiver.js node               wechat-messages without a framework: over `${timestamp}:${body}`
//
// With Express where it is installed; else express.json() is a JSON.parse of the body. Prints the framework,
// `port N`, and a line for each request. The secret is in $SECRET.
'use strict';

const crypto = require('crypto');
const http = require('http');

const SECRET = process.env.SECRET;
const variant = process.argv[2];

const sign = (text) => crypto.createHmac('sha256', SECRET).update(text).digest('hex');

function same(given, expected) {
  const [a, b] = [Buffer.from(given || ''), Buffer.from(expected)];
  return a.length === b.length && crypto.timingSafeEqual(a, b);
}

function answer(status, what) {
  console.log(what);
  return [status, { success: status === 200, message: what }];
}

function customerEvent(headers, body) {
  if (!same(headers['x-webhook-signature'], 'sha256=' + sign(JSON.stringify(body)))) {
    return answer(401, 'refused signature');
  }
  return answer(200, `accepted ${body.event} ${body.data.id}`);
}

function message(headers, body, text) {
  const timestamp = headers['x-webhook-timestamp'];
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > 300) {
    return answer(401, 'refused timestamp');
  }
  if (!same(headers['x-webhook-signature'], sign(`${timestamp}:${text}`))) {
    return answer(401, 'refused signature');
  }
  const kind = body.msgType === 49 ? `link ${body.content.url}` : `text ${body.content}`;
  return answer(200, `accepted ${body.msgId} ${kind}`);
}

const handlers = {
  'express-customer': (headers, body) => customerEvent(headers, body),
  'express-wechat': (headers, body) => message(headers, body, JSON.stringify(body)),
  node: (headers, body, raw) => message(headers, body, raw),
};
const handle = handlers[variant];

function listening() {
  console.log(`port ${this.address().port}`);
}

let express;
try {
  express = variant === 'node' ? undefined : require('express');
} catch {
  express = undefined;
}
if (express) {
  console.log('on Express');
  const app = express();
  app.use(express.json());
  app.post('/webhook', (req, res) => {
    const [status, body] = handle(req.headers, req.body);
    res.status(status).json(body);
  });
  app.listen(0, '127.0.0.1', listening);
} else {
  const server = http.createServer((req, res) => {
    let raw = '';
    req.setEncoding('utf8');
    req.on('data', (chunk) => (raw += chunk));
    req.on('end', () => {
      const [status, body] = handle(req.headers, JSON.parse(raw), raw);
      res.writeHead(status, { 'Content-Type': 'application/json' });
      res.end(JSON.stringify(body));
    });
  });
  server.listen(0, '127.0.0.1', listening);
}
