// One conversation over the npm package ws; see interop_test.go. Usage: node client.js <url> <driver>
'use strict'
const WebSocket = require('ws')

const [url, driver] = process.argv.slice(2)
const here = { latitude: 24.86, longitude: 67.01 }
const socket = new WebSocket(url, 'dray.v1.json')
const waiting = [] // frames that came before they were asked for
let wake = () => {}

socket.on('message', (data, isBinary) => {
  if (isBinary) throw new Error('a binary frame')
  waiting.push(JSON.parse(data))
  wake()
})
socket.on('error', (err) => { throw err })

// next is the next frame of this type; frames of another type before it are dropped.
async function next (type) {
  for (;;) {
    while (waiting.length === 0) await new Promise((resolve) => { wake = resolve })
    const frame = waiting.shift()
    if (frame.type === 'error') throw new Error(JSON.stringify(frame))
    if (frame.type === type) return frame
  }
}

const send = (frame) => socket.send(JSON.stringify(frame))
const position = (seq) => send({ type: 'position', driver, latitude: here.latitude + seq / 1e5, longitude: here.longitude, accuracy: null, attributes: { status: 'frei – überall' }, seq })

async function main () {
  const welcome = await next('welcome')
  console.log('welcome', socket.protocol, welcome.heartbeatMs)

  for (let seq = 1; seq <= 20; seq++) position(seq)
  let ack
  do ack = await next('ack'); while (ack.seq < 20)
  console.log('ack', ack.seq)

  send({ type: 'subscribe', id: 'near', nearby: { ...here, radius: 1000 }, filter: { status: ['frei – überall'] }, intervalMs: 0 })
  const snapshot = await next('snapshot')
  console.log('snapshot', snapshot.id, snapshot.drivers.length, snapshot.drivers[0].driver, snapshot.drivers[0].attributes.status)

  position(21)
  const delta = await next('delta')
  console.log('delta', delta.id, delta.version > snapshot.version, delta.moved.length, delta.moved[0].latitude)

  send({ type: 'nearby', id: 7, ...here, radius: 1000, limit: 5 })
  const result = await next('result')
  console.log('result', result.id, result.drivers.length, Math.round(result.drivers[0].distance))

  await new Promise((resolve) => { socket.once('pong', resolve); socket.ping('still there?') })
  console.log('pong')

  socket.once('close', (code, reason) => console.log('closed', code, String(reason)))
  socket.close(1000, 'done')
}

main().catch((err) => { console.error(err); process.exit(1) })
