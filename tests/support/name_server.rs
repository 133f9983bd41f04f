//! A DNS server that answers every name with the same addresses.

#![allow(clippy::unwrap_used, reason = "a helper's panic fails its test")]

use std::net::SocketAddr;

use tokio::net::UdpSocket;

/// Starts a server that runs as long as the runtime; `None` if the address cannot be bound.
pub async fn name_server(listen: SocketAddr, answers: &'static [[u8; 4]]) -> Option<SocketAddr> {
    let socket = UdpSocket::bind(listen).await.ok()?;
    let addr = socket.local_addr().ok()?;
    tokio::spawn(async move {
        let mut query = [0; 512];
        while let Ok((len, from)) = socket.recv_from(&mut query).await {
            let name_ends = 12 + query[12..len].iter().position(|byte| *byte == 0).unwrap();
            let question = query[12..name_ends + 5].to_vec();
            let is_a = question[question.len() - 4..question.len() - 2] == [0, 1];
            let answers = if is_a { answers } else { &[] };
            // RFC 1035, section 4: an answer, recursion available, no error.
            let mut response = [
                &query[..2],
                &[0x81, 0x80, 0, 1, 0, u8::try_from(answers.len()).unwrap(), 0, 0, 0, 0],
            ]
            .concat();
            response.extend(question);
            for answer in answers {
                response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                response.extend(answer);
            }
            socket.send_to(&response, from).await.unwrap();
        }
    });
    Some(addr)
}
